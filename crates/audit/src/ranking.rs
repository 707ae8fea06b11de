//! A linear ranking model of the words of responses: a proxy for a reward model that is trained in seconds.

use seeds::Stream;

use crate::folds::shuffle;
use crate::logistic::{Rows, score};
use crate::text::words;

/// Words are hashed to this number of columns.
pub(crate) const COLUMNS: usize = 1 << 16;
/// The cost of a violated margin; LIBLINEAR's default.
const COST: f64 = 1.0;
const MOST_PASSES: usize = 20;
/// LIBLINEAR's default: the largest violation of an optimality condition in a pass.
const TOLERANCE: f64 = 0.1;

/// Returns the differences of the logarithmic word counts of two responses, as a row of norm 1.
pub(crate) fn difference([chosen, rejected]: [&str; 2]) -> Vec<(u16, f32)> {
    let mut entries = Vec::new();
    for (text, sign) in [(chosen, 1.0), (rejected, -1.0)] {
        let mut columns: Vec<u16> = words(text).into_iter().map(|word| (word >> 48) as u16).collect();
        columns.sort_unstable();
        let counts = columns.chunk_by(|a, b| a == b);
        entries.extend(counts.map(|same| (same[0], sign * (1.0 + same.len() as f32).ln())));
    }
    entries.sort_by_key(|(column, _)| *column);
    entries.dedup_by(|later, earlier| {
        let is_same = later.0 == earlier.0;
        if is_same {
            earlier.1 += later.1;
        }
        is_same
    });
    entries.retain(|(_, value)| *value != 0.0);
    let norm = entries.iter().map(|(_, value)| value * value).sum::<f32>().sqrt();
    entries.iter_mut().for_each(|(_, value)| *value /= norm);
    entries
}

/// Returns the weights w that minimize ½ |w|² + C Σ max(0, 1 − w·xᵢ)² over the rows `which`: a ranking support vector
/// machine (Joachims 2002) by dual coordinate descent (Hsieh et al. 2008, algorithm 1).
pub(crate) fn fit(rows: &Rows, which: &[usize], columns: usize, stream: &mut Stream) -> Vec<f64> {
    fit_within(rows, which, columns, (TOLERANCE, MOST_PASSES), stream)
}

fn fit_within(
    rows: &Rows,
    which: &[usize],
    columns: usize,
    (tolerance, passes): (f64, usize),
    stream: &mut Stream,
) -> Vec<f64> {
    let diagonal = 1.0 / (2.0 * COST);
    let curvature =
        |row: &[(u16, f32)]| row.iter().map(|(_, x)| f64::from(*x).powi(2)).sum::<f64>() + diagonal;
    let (mut weights, mut duals) = (vec![0.0; columns], vec![0.0_f64; which.len()]);
    let mut order: Vec<usize> = (0..which.len()).collect();
    for _ in 0..passes {
        shuffle(&mut order, stream);
        let mut most = 0.0_f64;
        for &at in &order {
            let (row, dual) = (rows.row(which[at]), duals[at]);
            let gradient = score(row, &weights) - 1.0 + diagonal * dual;
            let projected = if dual == 0.0 { gradient.min(0.0) } else { gradient };
            most = most.max(projected.abs());
            duals[at] = (dual - gradient / curvature(row)).max(0.0);
            let change = duals[at] - dual;
            for &(column, x) in row {
                weights[usize::from(column)] += change * f64::from(x);
            }
        }
        if most < tolerance {
            break;
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use seeds::Seeds;

    use super::*;

    #[test]
    fn differences_are_of_logarithmic_counts() {
        let mut values: Vec<f32> = difference(["Yes, yes, of course", "of course not"])
            .into_iter()
            .map(|(_, value)| value)
            .collect();
        values.sort_by(f32::total_cmp);
        // `yes` twice against never, `not` once; `of` and `course` are in both.
        let (yes, not) = (3.0_f32.ln(), -2.0_f32.ln());
        let norm = yes.hypot(not);
        assert_eq!(values.len(), 2, "{values:?}");
        for (value, expected) in values.iter().zip([not, yes]) {
            assert!((value - expected / norm).abs() < 1e-6, "{values:?}");
        }
        assert!(difference(["the same words", "words the same"]).is_empty());
    }

    #[test]
    fn weights_converge_to_those_of_liblinear() {
        let (differences, expected) = crate::peers::ranking();
        let mut rows = Rows::default();
        differences.iter().for_each(|row| rows.push((0..).zip(row.iter().copied())));
        let which: Vec<usize> = (0..differences.len()).collect();
        let mut stream = Seeds::new(3).stream("order");
        let found = fit_within(&rows, &which, expected.len(), (1e-10, 5_000), &mut stream);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{found} against {expected}");
        }
    }
}
