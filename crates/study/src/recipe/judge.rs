//! The table of a recipe that says who rates answers.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use llm_client::{ChatSampling, EndpointKind, LimitName, Limits, RetryPolicy};
use mtbench::JUDGMENT_TOKENS;
use serde::{Deserialize, Serialize};
use trainer::recipe::Complaint;

/// Who rates answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeSection {
    /// What kind of judge.
    pub kind: JudgeKind,
    /// The endpoint's base URL, such as `http://localhost:8000/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The model, by the endpoint's name for it; with Azure the deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The judge's name in tables and files; where it is not given, the model's without what stands before a slash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The environment variable that holds the API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// The version of Azure's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure_api_version: Option<String>,
    /// Reference answers in FastChat's format; the benchmark folder's, of this judge or of `gpt-4`, where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<PathBuf>,
    /// The judge's temperature.
    #[serde(default)]
    pub temperature: f64,
    /// The longest judgment, in tokens.
    #[serde(default = "judgment_tokens")]
    pub max_tokens: u32,
    /// Whether that limit is sent as `max_completion_tokens`, on which reasoning models insist.
    #[serde(default)]
    pub completion_tokens: bool,
    /// Opinions on each answer, of which the median counts.
    #[serde(default = "one")]
    pub repeats: NonZeroU32,
    /// How often a judge is asked again whose text holds no verdict.
    #[serde(default = "twice")]
    pub reasks: u32,
    /// How fast and how long it is asked.
    #[serde(default)]
    pub pace: PaceSection,
    /// A second judge of the same answers, so that what depends on the judge shows; its verdicts stand beside the first one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Box<JudgeSection>>,
}

/// How fast and for how long an endpoint is asked; changes no result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PaceSection {
    /// Calls at a time.
    pub concurrency: NonZeroU32,
    /// Requests a minute at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens a minute at most, prompts and answers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Seconds after which a call is given up and made again.
    pub timeout: f64,
    /// Attempts at a call.
    pub attempts: NonZeroU32,
    /// A run stops before the call that could bring its costs above this many USD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<f64>,
    /// Prices of models, as TOML, before the list prices that the programs know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prices: Option<PathBuf>,
}

/// What kind of judge rates answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JudgeKind {
    /// The sandbox's two judges, beside its gold quality.
    Sandbox,
    /// A model behind an OpenAI-compatible endpoint.
    Endpoint,
}

impl Default for PaceSection {
    fn default() -> Self {
        Self {
            concurrency: NonZeroU32::new(8).expect("not 0"),
            requests_per_minute: None,
            tokens_per_minute: None,
            timeout: 120.0,
            attempts: NonZeroU32::new(RetryPolicy::PATIENT.attempts).expect("patience tries at least once"),
            max_cost: None,
            prices: None,
        }
    }
}

impl JudgeSection {
    /// The sandbox's judges.
    pub fn sandbox() -> Self {
        Self {
            kind: JudgeKind::Sandbox,
            base_url: None,
            model: None,
            name: None,
            api_key_env: None,
            azure_api_version: None,
            references: None,
            temperature: 0.0,
            max_tokens: judgment_tokens(),
            completion_tokens: false,
            repeats: one(),
            reasks: twice(),
            pace: PaceSection::default(),
            second: None,
        }
    }

    /// Every judge, the one whose scores are the study's first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Self> {
        [self].into_iter().chain(self.second.as_deref())
    }

    /// The judge's name in tables and files.
    pub fn name(&self) -> &str {
        let of_model = self.model().rsplit('/').next().unwrap_or_default();
        self.name.as_deref().unwrap_or(of_model)
    }

    /// The model, by the endpoint's name for it.
    pub fn model(&self) -> &str {
        self.model.as_deref().unwrap_or_default()
    }

    pub(crate) fn endpoint_kind(&self) -> EndpointKind {
        match &self.azure_api_version {
            Some(version) => {
                EndpointKind::Azure { deployment: self.model().to_owned(), api_version: version.clone() }
            }
            None => EndpointKind::OpenAi,
        }
    }

    pub(crate) fn sampling(&self) -> ChatSampling {
        let limit_name =
            if self.completion_tokens { LimitName::MaxCompletionTokens } else { LimitName::MaxTokens };
        let temperature = Some(self.temperature);
        ChatSampling { temperature, limit_name, ..ChatSampling::greedy(self.max_tokens) }
    }

    /// What of it determines the verdicts, in short.
    pub(crate) fn identity(&self) -> String {
        let of_one = |judge: &Self| {
            let Self { model, name, temperature, max_tokens, repeats, reasks, .. } = judge;
            format!("{model:?} {name:?} {temperature} {max_tokens} {repeats} {reasks}")
        };
        self.all().map(of_one).collect::<Vec<_>>().join(" and ")
    }

    pub(super) fn check(&self) -> Result<(), Complaint> {
        self.check_alone()?;
        let Some(second) = &self.second else { return Ok(()) };
        let within = |complaint: Complaint| complaint.within("second");
        second.check_alone().map_err(within)?;
        let only = |is_given: bool, key: &'static str, reason: &str| match is_given {
            true => Err(within(Complaint::invalid(key, reason))),
            false => Ok(()),
        };
        only(second.kind != JudgeKind::Endpoint, "kind", "must be \"endpoint\", as the first judge is")?;
        only(second.second.is_some(), "second", "would be a third judge; two are what a study compares")?;
        only(
            second.references.is_some(),
            "references",
            "is the first judge's to set: both see the same; remove the key",
        )?;
        let reason = "is the first judge's too, and names files; set judge.second.name to another";
        only(second.name() == self.name(), "name", reason)
    }

    fn check_alone(&self) -> Result<(), Complaint> {
        let of_endpoint = self.kind == JudgeKind::Endpoint;
        for (key, is_given) in [("base_url", self.base_url.is_some()), ("model", self.model.is_some())] {
            if of_endpoint && !is_given {
                return Err(Complaint::invalid(
                    key,
                    "is missing; judge.kind = \"endpoint\" asks a model by its address",
                ));
            }
        }
        if !of_endpoint && *self != Self::sandbox() {
            let only = "must be the table's only key for \"sandbox\", whose judges need no address";
            return Err(Complaint::invalid("kind", only));
        }
        let named = self.name();
        if of_endpoint && (named.is_empty() || named.starts_with('.') || named.contains(['/', '\\'])) {
            let reason = format!(
                "names files, and `{named}` cannot; set judge.name to a plain name, such as the model's own"
            );
            return Err(Complaint::invalid("name", reason));
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Complaint::invalid("temperature", "must be a number from 0"));
        }
        if self.pace.timeout().is_none_or(|timeout| timeout.is_zero()) {
            return Err(Complaint::invalid("timeout", "must be a number of seconds above 0").within("pace"));
        }
        Ok(())
    }
}

impl PaceSection {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            concurrency: self.concurrency,
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
        }
    }

    pub(crate) fn retry(&self) -> RetryPolicy {
        RetryPolicy { attempts: self.attempts.get(), ..RetryPolicy::PATIENT }
    }

    /// `None` for what is no time.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.timeout).ok()
    }
}

fn judgment_tokens() -> u32 {
    JUDGMENT_TOKENS
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn twice() -> u32 {
    2
}
