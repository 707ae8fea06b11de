//! The rank of a process.

use crate::TorchExtError;

/// The rank of a process, from 0, and the world size.
///
/// ```
/// use torch_ext::distributed::Rank;
///
/// let rank = Rank::new(1, 4)?;
/// assert_eq!((rank.index(), rank.world_size()), (1, 4));
/// assert!(Rank::new(4, 4).is_err());
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    index: u16,
    world_size: u16,
}

impl Rank {
    /// The rank of a single process.
    pub const ALONE: Self = Self { index: 0, world_size: 1 };

    /// Creates rank `index` of `world_size`.
    ///
    /// # Errors
    ///
    /// [`TorchExtError::NoSuchRank`] unless `index` is below `world_size`.
    pub fn new(index: u16, world_size: u16) -> Result<Self, TorchExtError> {
        if index >= world_size {
            return Err(TorchExtError::NoSuchRank { rank: index.into(), world_size: world_size.into() });
        }
        Ok(Self { index, world_size })
    }

    /// Returns the rank.
    pub fn index(self) -> usize {
        self.index.into()
    }

    /// Returns the number of ranks.
    pub fn world_size(self) -> usize {
        self.world_size.into()
    }
}

impl std::fmt::Display for Rank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.index, self.world_size)
    }
}
