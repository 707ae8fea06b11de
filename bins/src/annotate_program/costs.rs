//! The costs of calls.

use llm_client::{Recovery, Totals};

use crate::program::print_result;

/// Prints calls and costs.
pub(super) fn print_costs(totals: Totals, recovery: Recovery) -> anyhow::Result<()> {
    let unpriced = if totals.unpriced > 0 {
        format!(", {} calls of unknown cost", totals.unpriced)
    } else {
        String::new()
    };
    print_result(format_args!("{} calls answered, {:.4} USD{unpriced}", totals.answered, totals.usd))?;
    if recovery.interrupted > 0 {
        let interrupted = recovery.interrupted;
        print_result(format_args!("{interrupted} calls of earlier processes may have been billed twice"))?;
    }
    Ok(())
}
