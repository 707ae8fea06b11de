//! Parts of a grid, for processes and machines that share a store.

use crate::cell::Subject;
use crate::grid::Grid;

/// A part of the cells: every `of`-th, beginning with the `index`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The part, from 0.
    pub index: usize,
    /// The number of parts.
    pub of: usize,
}

/// What the ranks of a process group compute of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// All cells, and the calls of the judges.
    Lead,
    /// The cells of a shard, without calls of judges behind an endpoint.
    Part {
        /// The shard.
        shard: Shard,
        /// How many deaths of its processes a cell survives; at the next one it fails.
        max_restarts: u32,
    },
}

impl Role {
    /// Returns the shard that it computes.
    pub(crate) fn shard(self) -> Shard {
        match self {
            Self::Lead => Shard::WHOLE,
            Self::Part { shard, .. } => shard,
        }
    }
}

impl Shard {
    /// All cells.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Returns its part of a grid. The subjects of a cell are in one part.
    pub(crate) fn part(self, grid: &Grid) -> impl Iterator<Item = &Subject> {
        let cells = grid.cells();
        grid.subjects().iter().enumerate().filter_map(move |(position, subject)| {
            let position = match subject {
                Subject::Baseline { .. } => position,
                Subject::Trained { cell, .. } => cells.iter().position(|c| *c == cell).unwrap_or(position),
            };
            (position % self.of == self.index).then_some(subject)
        })
    }
}
