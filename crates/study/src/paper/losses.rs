//! Table 5: what a printed training loss implies about the policy's margins.

use report::table::{Align, Column, Table, Value};

use super::overfitting::Checkpoints;

/// β of the untuned runs.
const BETA: f64 = 0.1;

/// Returns the least mean margin h, in nats, at an IPO loss E(h − 1/(2β))² of `loss`; margins are differences of log-ratios.
///
/// By Jensen's inequality |E h − 1/(2β)| ≤ √loss. A policy that equals its reference has h = 0 and the loss 1/(4β²).
///
/// ```
/// let margin = study::paper::least_ipo_margin(3.231, 0.1);
/// assert!((margin - 3.20).abs() < 0.01);
/// assert_eq!(study::paper::least_ipo_margin(25.0, 0.1), 0.0);
/// ```
pub fn least_ipo_margin(loss: f64, beta: f64) -> f64 {
    1.0 / (2.0 * beta) - loss.sqrt()
}

/// Returns the least mean margin h, in nats, at a DPO loss E ln(1 + exp(−βh)) of `loss`, by Jensen's inequality.
///
/// ```
/// let margin = study::paper::least_dpo_margin(0.018, 0.1);
/// assert!((margin - 40.1).abs() < 0.1);
/// assert!(study::paper::least_dpo_margin(2.0_f64.ln(), 0.1).abs() < 1e-9);
/// ```
pub fn least_dpo_margin(loss: f64, beta: f64) -> f64 {
    -loss.exp_m1().ln() / beta
}

/// Returns the least margins at the printed losses of the runs with the default β.
pub(super) fn table(all: &[Checkpoints]) -> Table {
    let quarters = ["1/4", "2/4", "3/4", "4/4"];
    let untuned = all.iter().filter(|of| !of.name.contains("Tuned"));
    let rows = untuned.map(|of| {
        let margin = if of.name.ends_with("IPO") { least_ipo_margin } else { least_dpo_margin };
        let mut row = vec![Value::text(&of.name)];
        row.extend(of.losses.iter().map(|loss| Value::Number { value: margin(*loss, BETA), decimals: 1 }));
        row
    });
    let mut columns = vec![Column::new("Policy", Align::Left)];
    columns.extend(quarters.map(|quarter| Column::new(quarter, Align::Right)));
    Table {
        id: "margins".to_owned(),
        title: "Least mean margin at the printed training loss, β = 0.1, in nats (Table 5)".to_owned(),
        columns,
        rows: rows.collect(),
        notes: vec![
            "By Jensen’s inequality, from the formula of the loss.".to_owned(),
            "IPO’s optimum is 1/(2β) = 5; the loss starts at 25.".to_owned(),
        ],
    }
}
