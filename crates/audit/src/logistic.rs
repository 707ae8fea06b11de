//! Logistic regression of pairs on sparse differences of features.

/// Rows of differences, chosen minus rejected, in compressed form.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    starts: Vec<usize>,
    entries: Vec<(u16, f32)>,
}

impl Rows {
    /// Adds a row of `(column, difference)`.
    pub(crate) fn push(&mut self, row: impl IntoIterator<Item = (u16, f32)>) {
        self.starts.push(self.entries.len());
        self.entries.extend(row.into_iter().filter(|(_, difference)| *difference != 0.0));
    }

    pub(crate) fn row(&self, at: usize) -> &[(u16, f32)] {
        let end = self.starts.get(at + 1).copied().unwrap_or(self.entries.len());
        &self.entries[self.starts[at]..end]
    }

    /// Multiplies all entries of a column.
    pub(crate) fn scale(&mut self, factors: &[f64]) {
        for (column, difference) in &mut self.entries {
            *difference *= factors[usize::from(*column)] as f32;
        }
    }

    /// Returns the root mean square of each of `columns` columns, over all rows.
    pub(crate) fn root_mean_squares(&self, columns: usize) -> Vec<f64> {
        let mut squares = vec![0.0; columns];
        for &(column, difference) in &self.entries {
            squares[usize::from(column)] += f64::from(difference).powi(2);
        }
        squares.into_iter().map(|square: f64| (square / self.starts.len().max(1) as f64).sqrt()).collect()
    }
}

/// The ridge penalty, for differences with a root mean square of 1.
pub(crate) const PENALTY: f64 = 1.0;
const MOST_STEPS: usize = 50;
const TOLERANCE: f64 = 1e-9;

/// Returns the weights w that maximize Σ log σ(w·xᵢ) − ½ penalty |w|² over the rows `which`, by Newton's method. Columns
/// outside of `is_used` keep the weight 0.
///
/// It is logistic regression without an intercept on both presentations of each pair, so neither order is favored.
pub(crate) fn fit(
    rows: &Rows,
    which: &[usize],
    columns: usize,
    is_used: impl Fn(u16) -> bool,
    penalty: f64,
) -> Vec<f64> {
    // Used columns get consecutive numbers, so that one feature costs one column.
    let used: Vec<u16> = (0..columns as u16).filter(|column| is_used(*column)).collect();
    let position: Vec<Option<usize>> =
        (0..columns as u16).map(|column| used.binary_search(&column).ok()).collect();
    let size = used.len();
    let mut weights = vec![0.0; size];
    let mut best = objective(rows, which, &position, &weights, penalty);
    for _ in 0..MOST_STEPS {
        let (gradient, hessian) = derivatives(rows, which, &position, &weights, penalty);
        let step = solve(hessian, gradient);
        let mut length = 1.0;
        let (moved, value) = loop {
            let moved: Vec<f64> =
                weights.iter().zip(&step).map(|(weight, step)| weight + length * step).collect();
            let value = objective(rows, which, &position, &moved, penalty);
            if value >= best || length < 1e-6 {
                break (moved, value);
            }
            length /= 2.0;
        };
        let largest = step.iter().fold(0.0_f64, |most, step| most.max((length * step).abs()));
        (weights, best) = (moved, value);
        if largest < TOLERANCE {
            break;
        }
    }
    let mut all = vec![0.0; columns];
    used.iter().zip(weights).for_each(|(column, weight)| all[usize::from(*column)] = weight);
    all
}

/// Returns w·x.
pub(crate) fn score(row: &[(u16, f32)], weights: &[f64]) -> f64 {
    row.iter().map(|&(column, difference)| weights[usize::from(column)] * f64::from(difference)).sum()
}

/// Returns log σ(x) without overflow.
fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

fn used_row<'a>(
    row: &'a [(u16, f32)],
    position: &'a [Option<usize>],
) -> impl Iterator<Item = (usize, f64)> + 'a {
    row.iter()
        .filter_map(|&(column, difference)| Some((position[usize::from(column)]?, f64::from(difference))))
}

fn margin(row: &[(u16, f32)], position: &[Option<usize>], weights: &[f64]) -> f64 {
    used_row(row, position).map(|(at, difference)| weights[at] * difference).sum()
}

fn objective(rows: &Rows, which: &[usize], position: &[Option<usize>], weights: &[f64], penalty: f64) -> f64 {
    let likelihood: f64 = which.iter().map(|&at| log_sigmoid(margin(rows.row(at), position, weights))).sum();
    likelihood - 0.5 * penalty * weights.iter().map(|weight| weight * weight).sum::<f64>()
}

/// Returns the gradient of the objective and the negative of its Hessian, row by row.
fn derivatives(
    rows: &Rows,
    which: &[usize],
    position: &[Option<usize>],
    weights: &[f64],
    penalty: f64,
) -> (Vec<f64>, Vec<f64>) {
    let size = weights.len();
    let mut gradient: Vec<f64> = weights.iter().map(|weight| -penalty * weight).collect();
    let mut hessian = vec![0.0; size * size];
    (0..size).for_each(|at| hessian[at * size + at] = penalty);
    for &at in which {
        let row = rows.row(at);
        let wrong = 1.0 / (1.0 + margin(row, position, weights).exp());
        let curvature = wrong * (1.0 - wrong);
        for (i, x) in used_row(row, position) {
            gradient[i] += wrong * x;
            for (j, y) in used_row(row, position) {
                hessian[i * size + j] += curvature * x * y;
            }
        }
    }
    (gradient, hessian)
}

/// Solves A x = b for a symmetric positive definite A, by Cholesky's decomposition.
fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let rest = a[i * n + j] - dot;
            a[i * n + j] = if i == j { rest.max(f64::MIN_POSITIVE).sqrt() } else { rest / a[j * n + j] };
        }
        let dot: f64 = (0..i).map(|k| a[i * n + k] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| a[k * n + i] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i * n + i];
    }
    b
}
