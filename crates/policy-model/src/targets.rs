//! The projections that have adapters, as peft names them.

use std::fmt;

use regex::Regex;

use crate::config::ModelConfig;

/// The projections with adapters, by peft's rules.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// All projections of the layers (`"all-linear"`).
    AllLinear,
    /// Those whose name is one of these, or ends in one after a dot: `q_proj`, `layers.0.self_attn.q_proj`.
    Names(Vec<String>),
    /// Those whose whole name, such as `model.layers.0.self_attn.q_proj`, matches.
    Pattern(Pattern),
}

/// A regular expression of whole names.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    /// # Errors
    /// The text is not a regular expression; the message says why.
    pub fn new(text: &str) -> Result<Self, String> {
        match Regex::new(&format!("^(?:{text})$")) {
            Ok(regex) => Ok(Self { text: text.to_owned(), regex }),
            Err(error) => Err(format!("{text:?} is no regular expression: {error}")),
        }
    }
}

impl Pattern {
    /// Creates a pattern of whole names, or of their ends after a dot, as in peft's `rank_pattern`.
    ///
    /// # Errors
    /// The text is not a regular expression; the message says why.
    pub fn of_end(text: &str) -> Result<Self, String> {
        let whole = Self::new(&format!(r"(.*\.)?({text})"))?;
        Ok(Self { text: text.to_owned(), ..whole })
    }

    /// Returns whether the pattern matches the name of a module.
    pub fn matches(&self, module: &str) -> bool {
        self.regex.is_match(module)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The names of all families' projections.
const PROJECTIONS: [&str; 14] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "qkv_proj",
    "o_proj",
    "dense",
    "gate_proj",
    "up_proj",
    "gate_up_proj",
    "down_proj",
    "fc1",
    "fc2",
    "c_fc",
    "c_proj",
];

impl Targets {
    /// Returns targets of these names.
    pub fn names<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self::Names(names.into_iter().map(Into::into).collect())
    }

    /// Reads one word: `all-linear`, the name of a projection, or a pattern of whole names.
    ///
    /// # Errors
    /// The word is none of these.
    pub fn parse(word: &str) -> Result<Self, String> {
        match word {
            "all-linear" => Ok(Self::AllLinear),
            _ if PROJECTIONS.contains(&word) => Ok(Self::names([word])),
            pattern => Pattern::new(pattern).map(Self::Pattern),
        }
    }

    /// Checks the names of a list, as far as possible without a model. Names with a dot depend on it.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn check_name(name: &str) -> Result<(), String> {
        match name.contains('.') || PROJECTIONS.contains(&name) {
            true => Ok(()),
            false => Err(format!("{name} is unknown; known projections: {}", PROJECTIONS.join(", "))),
        }
    }

    /// Returns the modules of a model that are targets, in the order of the forward pass.
    pub fn modules(&self, config: &ModelConfig) -> Vec<String> {
        linear_modules(config).into_iter().filter(|module| self.includes(module)).collect()
    }

    /// Checks that the model has each of the targets.
    ///
    /// # Errors
    /// What is wrong, with the names that the model has.
    pub fn check(&self, config: &ModelConfig) -> Result<(), String> {
        if config.experts().is_some() && *self == Self::AllLinear {
            let names = short_names(&linear_modules(config)).join(", ");
            return Err(format!(
                "\"all-linear\" includes the experts in peft, whose adapters are not implemented; list some of {names}"
            ));
        }
        let modules = linear_modules(config);
        let unused = match self {
            Self::AllLinear => None,
            Self::Names(names) => {
                names.iter().find(|name| !modules.iter().any(|module| is_end(module, name))).cloned()
            }
            Self::Pattern(pattern) => {
                (!modules.iter().any(|module| self.includes(module))).then(|| pattern.text.clone())
            }
        };
        match unused {
            None => Ok(()),
            Some(unused) => Err(format!(
                "no projection of the model matches {unused:?}; each of its layers has {}",
                short_names(&modules).join(", ")
            )),
        }
    }

    /// Returns the short names of the targets, as peft lists them.
    pub(crate) fn listed(&self, config: &ModelConfig) -> Vec<String> {
        match self {
            Self::Names(names) => names.clone(),
            Self::AllLinear | Self::Pattern(_) => short_names(&self.modules(config)),
        }
    }

    fn includes(&self, module: &str) -> bool {
        match self {
            Self::AllLinear => true,
            Self::Names(names) => names.iter().any(|name| is_end(module, name)),
            Self::Pattern(pattern) => pattern.matches(module),
        }
    }
}

/// Whether `name` is the module's name, or its end after a dot.
pub(crate) fn is_end(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Returns the last parts of the modules' names, each once.
fn short_names(modules: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in modules.iter().filter_map(|module| module.rsplit('.').next()) {
        if !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Returns the projections of all layers, in the order of the forward pass: with a mixture of experts, those of attention.
fn linear_modules(config: &ModelConfig) -> Vec<String> {
    let has_experts = config.experts().is_some();
    let module = |(name, shape): (String, Vec<i64>)| {
        let module = name.strip_suffix(".weight").filter(|module| module.starts_with("model.layers."))?;
        let may_have_one = !has_experts || module.contains(".self_attn.");
        (may_have_one && shape.len() == 2 && !module.ends_with("_norm")).then(|| module.to_owned())
    };
    config.parameter_shapes().into_iter().filter_map(module).collect()
}
