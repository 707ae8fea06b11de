//! Table 2: three raters with three choices.

/// Computes the expected number of items that three raters split three ways, and the probability of none.
///
/// The model has a chance-corrected agreement of `kappa`: each rater reports an item's class with probability √κ, and
/// otherwise a class by its share.
///
/// ```
/// let (expected, none) = study::paper::three_way_splits(0.64, [0.39, 0.29, 0.32], 160.0);
/// assert!((3.5..3.7).contains(&expected) && none < 0.03);
/// assert_eq!(study::paper::three_way_splits(1.0, [0.39, 0.29, 0.32], 160.0), (0.0, 1.0));
/// ```
pub fn three_way_splits(kappa: f64, shares: [f64; 3], items: f64) -> (f64, f64) {
    let known = kappa.sqrt();
    let of_class = |class: usize| {
        let report =
            |choice: usize| f64::from(u8::from(choice == class)) * known + (1.0 - known) * shares[choice];
        6.0 * report(0) * report(1) * report(2)
    };
    let split: f64 = (0..3).map(|class| shares[class] * of_class(class)).sum();
    (items * split, (1.0 - split).powf(items))
}
