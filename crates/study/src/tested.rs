//! Claims under one scorer, with p-values that are corrected for all comparisons of a question.

use experiment::{Analysis, LEVEL, Scorer};
use report::table::Value;
use stats::{Assay, DetectableEffect, MeanEstimate, PlannedTest, holm};

use crate::claims::Claim;
use crate::contrast::{Contrast, Measurement};
use crate::error::StudyError;
use crate::evidence::POWER;
use crate::verdict::{SIGNIFICANT, Shown};

pub(crate) const DECIMALS: usize = 2;

/// A contrast under one scorer, corrected for all comparisons of the research question.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) estimate: MeanEstimate,
    /// The confidence level of its interval.
    pub(crate) level: f64,
    pub(crate) shown: Shown,
    pub(crate) mde: DetectableEffect,
    /// The numbers of questions and of seeds.
    pub(crate) size: (usize, usize),
    /// The difference between training on clean labels and no training, if the claim depends on it.
    pub(crate) control: Option<MeanEstimate>,
}

impl Measured {
    /// Returns a sentence on the positive control of a claim that depends on one.
    pub(crate) fn assay_in_words(&self) -> Option<String> {
        let control = self.control.as_ref()?;
        let interval = control.interval(LEVEL).ok()?;
        let [value, low, high] = [control.value, interval.low, interval.high].map(signed);
        let seen = match self.shown.assay {
            Assay::Sensitive => "is seen, so that an absent effect is interpretable",
            Assay::NotSensitive => "is not seen, so that an absent effect is not interpretable",
        };
        Some(format!(
            "Assay: the effect of training on clean labels, {value} [{low}, {high}] over SFT, {seen}."
        ))
    }
}

/// Measures a contrast by one rater of the answers; `None` without its policies.
pub(crate) type Measure<'m> = &'m dyn Fn(&Contrast<'_>) -> Result<Option<Measurement>, StudyError>;

/// Measures claims by one scorer; `None` for a claim whose policies the grid lacks.
pub(crate) fn tested(
    (analysis, scorer, margin): (&Analysis<'_>, &Scorer, f64),
    claims: &[Claim<'_>],
) -> Result<Vec<Option<Measured>>, StudyError> {
    let measure = |contrast: &Contrast<'_>| contrast.measure(analysis, scorer, margin);
    let measured = claims.iter().map(|claim| measure(&claim.contrast)).collect::<Result<Vec<_>, _>>()?;
    corrected(&measure, claims, &measured)
}

/// Returns the measurements with p-values corrected for all of them by Holm's method. `measure` measures the controls.
pub(crate) fn corrected(
    measure: Measure<'_>,
    claims: &[Claim<'_>],
    measured: &[Option<Measurement>],
) -> Result<Vec<Option<Measured>>, StudyError> {
    let failed = || StudyError::stats("verdicts");
    let known: Vec<&Measurement> = measured.iter().flatten().collect();
    let family = |of: fn(&Measurement) -> f64| {
        holm(&known.iter().map(|measurement| of(measurement)).collect::<Vec<_>>()).map_err(failed())
    };
    let (p, equivalence, not_lower) =
        (family(|m| m.p)?, family(|m| m.equivalence)?, family(|m| m.not_lower)?);
    let test = PlannedTest { level: LEVEL, power: POWER, comparisons: known.len() };
    let (mut all, mut next) = (Vec::new(), 0);
    for (claim, measurement) in claims.iter().zip(measured) {
        let Some(measurement) = measurement else {
            all.push(None);
            continue;
        };
        let control = claim.control.as_ref();
        let control = control.map(measure).transpose()?.flatten();
        let control = control.map(|control| control.estimate);
        let estimate = measurement.estimate;
        all.push(Some(Measured {
            estimate,
            level: measurement.level,
            shown: Shown {
                is_higher: estimate.value > 0.0,
                p: p[next],
                equivalence: equivalence[next],
                not_lower: not_lower[next],
                assay: assay(claim, control.as_ref()),
            },
            mde: test.minimum_detectable_effect(&estimate).map_err(failed())?,
            size: measurement.size,
            control,
        }));
        next += 1;
    }
    Ok(all)
}

/// Returns whether a claim's positive control is seen. A claim without a control does not depend on one.
fn assay(claim: &Claim<'_>, control: Option<&MeanEstimate>) -> Assay {
    match (&claim.control, control) {
        (None, _) => Assay::Sensitive,
        (Some(_), None) => Assay::NotSensitive,
        (Some(_), Some(control)) => Assay::of(control, SIGNIFICANT),
    }
}

pub(crate) fn difference(measured: &Measured) -> Value {
    let value = measured.estimate.value;
    match measured.estimate.interval(measured.level) {
        Ok(interval) => {
            Value::Difference { value, low: interval.low, high: interval.high, decimals: DECIMALS }
        }
        Err(error) => Value::missing(error.to_string()),
    }
}

pub(crate) fn mde(measured: &Measured) -> Value {
    let DetectableEffect { value, interval } = measured.mde;
    Value::Interval { value, low: interval.low, high: interval.high, decimals: DECIMALS }
}

pub(crate) fn p_value(p: f64) -> Value {
    if p < 0.001 { Value::text("< 0.001") } else { Value::Number { value: p, decimals: 3 } }
}

pub(crate) fn signed(value: f64) -> String {
    format!("{value:+.DECIMALS$}").replace('-', "−")
}
