//! Corrections for multiple tests.

use crate::Error;
use crate::distribution::length;

/// Holm's adjusted p-values (*Scandinavian Journal of Statistics* 6, 1979), in the order of `p_values`.
///
/// At a threshold of 0.05 the probability of *any* false positive in the table is at most 5%, for every dependence
/// between tests. Use it if each claim of a table is quoted by itself.
///
/// # Errors
///
/// [`Error::NotProbability`] for a value outside of [0, 1].
///
/// ```
/// let adjusted = stats::holm(&[0.01, 0.04, 0.03, 0.005])?;
/// let expected = [0.03, 0.06, 0.06, 0.02];
/// assert!(adjusted.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12));
/// # Ok::<(), stats::Error>(())
/// ```
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>, Error> {
    let order = ascending(p_values)?;
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (place, &index) in order.iter().enumerate() {
        largest = largest.max(length(order.len() - place) * p_values[index]).min(1.0);
        adjusted[index] = largest;
    }
    Ok(adjusted)
}

/// Benjamini and Hochberg's adjusted p-values (*Journal of the Royal Statistical Society* B 57, 1995), in the order of
/// `p_values`.
///
/// At a threshold of 0.05 the expected proportion of false positives among the significant results is 5%. It assumes
/// independent or positively dependent tests, such as differences from one baseline. Use it for screening.
///
/// # Errors
///
/// As [`holm`].
///
/// ```
/// let adjusted = stats::benjamini_hochberg(&[0.01, 0.04, 0.03, 0.005])?;
/// let expected = [0.02, 0.04, 0.04, 0.02];
/// assert!(adjusted.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12));
/// # Ok::<(), stats::Error>(())
/// ```
pub fn benjamini_hochberg(p_values: &[f64]) -> Result<Vec<f64>, Error> {
    let order = ascending(p_values)?;
    let mut adjusted = vec![0.0; p_values.len()];
    let mut smallest = 1.0_f64;
    for (place, &index) in order.iter().enumerate().rev() {
        smallest = smallest.min(length(order.len()) / length(place + 1) * p_values[index]);
        adjusted[index] = smallest;
    }
    Ok(adjusted)
}

fn ascending(p_values: &[f64]) -> Result<Vec<usize>, Error> {
    if let Some((index, &value)) = p_values.iter().enumerate().find(|(_, p)| !(0.0..=1.0).contains(*p)) {
        return Err(Error::NotProbability { index, value });
    }
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    Ok(order)
}
