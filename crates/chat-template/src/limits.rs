//! What one rendering may cost.

use crate::error::{Problem, Result};

/// Operations of one rendering. Published templates take some thousand for a conversation.
const STEPS: u64 = 5_000_000;

/// Bytes that one rendering may create in strings and lists, all together.
const BYTES: u64 = 96 << 20;

/// Nested calls and expressions, which take stack.
const DEPTH: u32 = 400;

/// Bytes of one value of a list.
pub(crate) const VALUE_BYTES: usize = 32;

/// What is left of the limits.
#[derive(Debug)]
pub(crate) struct Budget {
    steps: u64,
    bytes: u64,
    depth: u32,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { steps: STEPS, bytes: BYTES, depth: DEPTH }
    }

    /// Takes `count` operations.
    pub(crate) fn steps(&mut self, count: u64) -> Result<()> {
        self.steps = self.steps.checked_sub(count).ok_or(Problem::Limit("it takes too many operations"))?;
        Ok(())
    }

    /// Takes the memory of `count` bytes, before they are allocated.
    pub(crate) fn bytes(&mut self, count: u128) -> Result<()> {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.bytes = self.bytes.checked_sub(count).ok_or(Problem::Limit("it makes too much text"))?;
        Ok(())
    }

    /// Bytes that may still be made.
    pub(crate) fn bytes_left(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    /// Takes the memory of a list of `count` values.
    pub(crate) fn values(&mut self, count: usize) -> Result<()> {
        self.steps(count as u64)?;
        self.bytes(count as u128 * VALUE_BYTES as u128)
    }

    /// Enters a nested call or expression.
    pub(crate) fn enter(&mut self) -> Result<()> {
        self.steps(1)?;
        self.depth = self.depth.checked_sub(1).ok_or(Problem::Limit("it nests or recurses too deeply"))?;
        Ok(())
    }

    /// Leaves it.
    pub(crate) fn leave(&mut self) {
        self.depth += 1;
    }
}
