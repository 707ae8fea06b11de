//! Tables 1 to 14 of *The Paradox of Preference* as printed, and what follows from their numbers alone.
//!
//! `docs/paper-reanalysis.md` is the output of [`reanalysis`]; a test compares the two.
//!
//! ```
//! let tables = study::paper::tables()?;
//! let volume = tables[2].column("Human, Loss = IPO")?;
//! assert_eq!(volume, [5.484, 6.300, 6.692, 6.928]);
//! let page = study::paper::reanalysis()?;
//! assert!(page.contains("p = 0.125"), "63 wins against 46 are not significant");
//! # Ok::<(), study::paper::Error>(())
//! ```

mod claims;
mod error;
mod grid;
mod overfitting;
mod page;
pub(crate) mod statements;
mod table;
mod trends;

pub use claims::{PrintedClaim, PrintedVerdict, claims};
pub use error::Error;
pub use grid::{ScoreGrid, grid};
pub use page::{reanalysis, summary};
pub use table::{PaperTable, tables};
