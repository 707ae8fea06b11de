//! The configuration of rotary position embeddings.

use serde_json::{Map, Value};

use crate::error::PolicyError;
use crate::fields::Fields;

/// Base and scaling of the rotary angles.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Scaling of the series for contexts longer than in pretraining.
    pub scaling: RopeScaling,
    /// Number of a head's dimensions that are rotated, from the first one on; even.
    pub rotary_dim: usize,
    /// Whether neighboring dimensions are pairs, as in Cohere, instead of the two halves.
    pub interleaved: bool,
}

/// Scaling of rotary frequencies after pretraining.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// Divides all frequencies by `factor`.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// Llama 3.1: divides the frequencies of long wavelengths by `factor`, keeps short ones, and interpolates between.
    Llama3 {
        /// Divisor of the slowest frequencies.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are scaled fully.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length of pretraining.
        original_max_position_embeddings: f64,
    },
    /// Raises the base for rows longer than the context of pretraining, by their length (dynamic NTK).
    Dynamic {
        /// Scale of the base's growth.
        factor: f64,
        /// Context length of pretraining.
        max_position_embeddings: f64,
    },
    /// `YaRN` ([Peng et al. 2023](https://arxiv.org/abs/2309.00071)): divides slow frequencies, keeps fast ones, and scales the
    /// queries and keys.
    Yarn {
        /// Divisor of the slowest frequencies.
        factor: f64,
        /// Factor of cosines and sines.
        attention_factor: f64,
        /// Rotations over the context of pretraining above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which it is divided.
        beta_slow: f64,
        /// Context length of pretraining.
        original_max_position_embeddings: f64,
        /// Whether the bounds are rounded to whole dimensions.
        truncate: bool,
    },
    /// `LongRoPE` ([Ding et al. 2024](https://arxiv.org/abs/2402.13753)): divides each frequency by a number of its own, of which a
    /// row longer than the context of pretraining has others.
    LongRope {
        /// Divisors for rows of at most `original_max_position_embeddings`, one per pair of dimensions.
        short_factor: Vec<f32>,
        /// Divisors for longer rows.
        long_factor: Vec<f32>,
        /// Context length of pretraining.
        original_max_position_embeddings: f64,
        /// Factor of cosines and sines.
        attention_factor: f64,
    },
}

const KNOWN_TYPES: &str = "default, linear, llama3, dynamic, yarn, longrope";

/// The rules of a family for its positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeRules {
    pub(crate) head_dim: usize,
    pub(crate) max_positions: usize,
    /// The base if the file has none.
    pub(crate) theta: f64,
    /// The rotated share of a head if the file has none; `None` if the family rotates whole heads only.
    pub(crate) partial: Option<f64>,
    pub(crate) interleaved: bool,
    /// Whether old names of rope types mean `longrope`, as in Phi-3.
    pub(crate) is_phi3: bool,
}

/// Reads an object, which may be null or absent.
fn object<'a>(fields: &Fields<'a>, key: &str) -> Result<Option<&'a Map<String, Value>>, PolicyError> {
    match fields.get(key) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(fields.bad(key, "an object or null")),
    }
}

impl Rope {
    /// Reads `rope_parameters`, or `rope_theta` and `rope_scaling` in files from before transformers 5.
    pub(crate) fn parse(fields: &Fields<'_>, rules: &RopeRules) -> Result<Self, PolicyError> {
        let parameters = match object(fields, "rope_parameters")? {
            Some(parameters) => Some(parameters),
            None => object(fields, "rope_scaling")?,
        };
        let nested = ["full_attention", "sliding_attention"];
        if parameters.is_some_and(|parameters| nested.iter().any(|key| parameters.contains_key(*key))) {
            return Err(fields.bad("rope_parameters", "one set of parameters for all layers of this family"));
        }
        Parameters { fields, rules, parameters, theta_key: "rope_theta" }.rope()
    }

    /// Reads the positions of the layers with full attention, and of those with a sliding window: `rope_parameters` by the kind of
    /// layer, or `rope_theta`, `rope_scaling` and, for windows, `local_theta_key` in older files.
    pub(crate) fn parse_by_kind(
        fields: &Fields<'_>,
        rules: &RopeRules,
        (local_theta_key, local_theta): (&'static str, f64),
    ) -> Result<(Self, Self), PolicyError> {
        let by_kind = object(fields, "rope_parameters")?;
        let of_kind = |kind: &str| match by_kind.map(|all| all.get(kind)) {
            Some(Some(Value::Object(parameters))) => Ok(Some(parameters)),
            None | Some(None | Some(Value::Null)) => Ok(None),
            Some(Some(_)) => Err(fields.bad("rope_parameters", "an object by the kind of layer")),
        };
        if by_kind.is_some_and(|all| all.contains_key("rope_type") || all.contains_key("rope_theta")) {
            let expected = "an object with `full_attention` and `sliding_attention` for this family";
            return Err(fields.bad("rope_parameters", expected));
        }
        let full = match of_kind("full_attention")? {
            None => object(fields, "rope_scaling")?,
            parameters => parameters,
        };
        let global = Parameters { fields, rules, parameters: full, theta_key: "rope_theta" };
        let local_rules = RopeRules { theta: local_theta, ..*rules };
        let parameters = of_kind("sliding_attention")?;
        let local = Parameters { fields, rules: &local_rules, parameters, theta_key: local_theta_key };
        Ok((global.rope()?, local.rope()?))
    }
}

/// One set of parameters.
struct Parameters<'a, 'f> {
    fields: &'a Fields<'f>,
    rules: &'a RopeRules,
    parameters: Option<&'f Map<String, Value>>,
    /// The name of the base outside of `parameters`, in old files.
    theta_key: &'static str,
}

impl Parameters<'_, '_> {
    fn rope(&self) -> Result<Rope, PolicyError> {
        let theta = match self.optional("rope_theta", false)? {
            Some(theta) => theta,
            None => self.outside(self.theta_key)?.unwrap_or(self.rules.theta),
        };
        let rotary_dim = self.rotary_dim()?;
        Ok(Rope {
            theta,
            scaling: self.scaling(rotary_dim)?,
            rotary_dim,
            interleaved: self.rules.interleaved,
        })
    }

    fn rotary_dim(&self) -> Result<usize, PolicyError> {
        const KEY: &str = "partial_rotary_factor";
        let share = self.optional(KEY, true)?;
        let share = match (self.rules.partial, share) {
            (None, Some(share)) if share != 1.0 => {
                return Err(self.bad(KEY, "1.0; nothing else is implemented for this family"));
            }
            (partial, share) => share.or(partial).unwrap_or(1.0),
        };
        let rotated = (self.rules.head_dim as f64 * share) as usize;
        if share > 1.0 || rotated < 2 || !rotated.is_multiple_of(2) {
            let expected =
                format!("a share of the head's {} dimensions, an even number", self.rules.head_dim);
            return Err(self.bad(KEY, &expected));
        }
        Ok(rotated)
    }

    fn scaling(&self, rotary_dim: usize) -> Result<RopeScaling, PolicyError> {
        let text = |key: &str| self.parameters.and_then(|p| p.get(key)).and_then(Value::as_str);
        let kind = text("rope_type").or_else(|| text("type")).unwrap_or("default");
        let kind = if self.rules.is_phi3 && matches!(kind, "su" | "yarn") { "longrope" } else { kind };
        Ok(match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: self.number("factor")? },
            "dynamic" => RopeScaling::Dynamic {
                factor: self.number("factor")?,
                max_position_embeddings: self.rules.max_positions as f64,
            },
            "llama3" => RopeScaling::Llama3 {
                factor: self.number("factor")?,
                low_freq_factor: self.number("low_freq_factor")?,
                high_freq_factor: self.number("high_freq_factor")?,
                original_max_position_embeddings: self.original_context()?,
            },
            "yarn" => self.yarn()?,
            "longrope" => self.longrope(rotary_dim)?,
            other => {
                return Err(PolicyError::UnsupportedRope {
                    path: self.fields.path.to_owned(),
                    found: other.to_owned(),
                    known: KNOWN_TYPES.to_owned(),
                });
            }
        })
    }

    fn yarn(&self) -> Result<RopeScaling, PolicyError> {
        let original = self.original_context()?;
        let factor = self.optional("factor", false)?.unwrap_or(self.rules.max_positions as f64 / original);
        let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
        let given = self.optional("attention_factor", false)?;
        let (mscale, all_dims) = (self.optional("mscale", false)?, self.optional("mscale_all_dim", false)?);
        let attention_factor = match (given, mscale, all_dims) {
            (Some(given), ..) => given,
            (None, Some(mscale), Some(all_dims)) => scale(mscale) / scale(all_dims),
            _ => scale(1.0),
        };
        let truncate = self.parameters.and_then(|p| p.get("truncate")).and_then(Value::as_bool);
        Ok(RopeScaling::Yarn {
            factor,
            attention_factor,
            beta_fast: self.optional("beta_fast", false)?.unwrap_or(32.0),
            beta_slow: self.optional("beta_slow", false)?.unwrap_or(1.0),
            original_max_position_embeddings: original,
            truncate: truncate.unwrap_or(true),
        })
    }

    fn longrope(&self, rotary_dim: usize) -> Result<RopeScaling, PolicyError> {
        let original = self.original_context()?;
        let factor = self.optional("factor", false)?.unwrap_or(self.rules.max_positions as f64 / original);
        let grown = || if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
        Ok(RopeScaling::LongRope {
            short_factor: self.factors("short_factor", rotary_dim / 2)?,
            long_factor: self.factors("long_factor", rotary_dim / 2)?,
            original_max_position_embeddings: original,
            attention_factor: self.optional("attention_factor", false)?.unwrap_or_else(grown),
        })
    }

    /// Reads a list of positive numbers, one per pair of rotated dimensions.
    fn factors(&self, key: &'static str, pairs: usize) -> Result<Vec<f32>, PolicyError> {
        let list = self.parameters.and_then(|p| p.get(key)).and_then(Value::as_array);
        let positive = |value: &Value| value.as_f64().filter(|v| v.is_finite() && *v > 0.0).map(|v| v as f32);
        let factors: Option<Vec<f32>> = list.and_then(|list| list.iter().map(positive).collect());
        let expected = || format!("a list of {pairs} positive numbers, one per pair of rotated dimensions");
        factors.filter(|factors| factors.len() == pairs).ok_or_else(|| self.bad(key, &expected()))
    }

    fn original_context(&self) -> Result<f64, PolicyError> {
        const KEY: &str = "original_max_position_embeddings";
        // transformers prefers a key outside of the parameters, which Phi-3 has.
        let outside = if self.rules.is_phi3 { self.outside(KEY)? } else { None };
        match outside {
            Some(context) => Ok(context),
            None => Ok(self.optional(KEY, true)?.unwrap_or(self.rules.max_positions as f64)),
        }
    }

    fn number(&self, key: &'static str) -> Result<f64, PolicyError> {
        self.optional(key, true)?.ok_or_else(|| self.bad(key, "a positive number"))
    }

    /// Reads a positive number of the parameters, or of the file with `also_outside`.
    fn optional(&self, key: &str, also_outside: bool) -> Result<Option<f64>, PolicyError> {
        let value = self.parameters.and_then(|p| p.get(key)).filter(|value| !value.is_null());
        match value {
            None if also_outside => self.outside(key),
            None => Ok(None),
            Some(value) => self.positive(key, value).map(Some),
        }
    }

    fn outside(&self, key: &str) -> Result<Option<f64>, PolicyError> {
        self.fields.get(key).map(|value| self.positive(key, value)).transpose()
    }

    fn positive(&self, key: &str, value: &Value) -> Result<f64, PolicyError> {
        let number = value.as_f64().filter(|number| number.is_finite() && *number > 0.0);
        number.ok_or_else(|| PolicyError::invalid_field(self.fields.path, key, value, "a positive number"))
    }

    fn bad(&self, key: &str, expected: &str) -> PolicyError {
        let value = self.parameters.and_then(|p| p.get(key)).or_else(|| self.fields.get(key));
        PolicyError::invalid_field(self.fields.path, key, value.unwrap_or(&Value::Null), expected)
    }
}
