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
mod further;
mod grid;
mod losses;
mod overfitting;
mod page;
mod power;
mod printed_claim;
mod raters;
mod selection;
pub(crate) mod statements;
mod table;
mod trends;

pub use claims::claims;
pub use error::Error;
pub use grid::{ScoreGrid, grid};
pub use losses::{least_dpo_margin, least_ipo_margin};
pub use page::{reanalysis, summary};
pub use power::{power, questions_needed};
pub use printed_claim::{PrintedClaim, PrintedVerdict};
pub use raters::three_way_splits;
pub use selection::expected_best;
pub use table::{PaperTable, tables};
pub use trends::pooled_trend;
