//! What to compare.

/// What to compare.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The arm with which every other one is compared.
    pub baseline: Option<String>,
    /// Contrasts, each as `A-B`. Without contrasts and baseline all pairs are compared.
    pub contrasts: Vec<String>,
    /// The scorer; `None` for all.
    pub scorer: Option<String>,
    /// Confidence level of intervals and of the family of tests.
    pub level: f64,
    /// The effect for which the sample is computed, in score points; `None` for the estimate itself.
    pub effect: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { baseline: None, contrasts: Vec::new(), scorer: None, level: 0.95, effect: None }
    }
}
