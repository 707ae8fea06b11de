//! The recipe's section of judges.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use llm_client::{ChatSampling, EndpointKind, LimitName, Limits, RetryPolicy};
use mtbench::JUDGMENT_TOKENS;
use serde::{Deserialize, Serialize};
use trainer::recipe::Complaint;

/// The judge of the answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeSection {
    /// The kind of judge.
    pub kind: JudgeKind,
    /// The endpoint's base URL, such as `http://localhost:8000/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The model's name at the endpoint; with Azure the deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The judge's name in tables and files [default: the model's name after the last slash].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The environment variable that holds the API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// The version of Azure's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure_api_version: Option<String>,
    /// Reference answers in FastChat's format [default: those in the benchmark's folder, of this judge or of `gpt-4`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<PathBuf>,
    /// The judge's temperature.
    #[serde(default)]
    pub temperature: f64,
    /// Maximum length of a judgment, in tokens.
    #[serde(default = "judgment_tokens")]
    pub max_tokens: u32,
    /// Whether the limit is sent as `max_completion_tokens`, which reasoning models require.
    #[serde(default)]
    pub completion_tokens: bool,
    /// Ratings per answer, of which the median counts.
    #[serde(default = "one")]
    pub repeats: NonZeroU32,
    /// Further calls after a reply without a verdict.
    #[serde(default = "twice")]
    pub reasks: u32,
    /// Rate and duration of the calls.
    #[serde(default)]
    pub pace: PaceSection,
    /// A second judge of the same answers, which shows how much results depend on the judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Box<JudgeSection>>,
}

/// What determines the verdicts of a judge; part of the address of an evaluation.
#[derive(Serialize)]
pub(crate) struct JudgeIdentity<'a> {
    pub(crate) model: Option<&'a str>,
    pub(crate) name: Option<&'a str>,
    pub(crate) temperature: f64,
    pub(crate) max_tokens: u32,
    pub(crate) repeats: NonZeroU32,
    pub(crate) reasks: u32,
}

/// Rate and duration of the calls to an endpoint; no result depends on them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PaceSection {
    /// Concurrent calls.
    pub concurrency: NonZeroU32,
    /// Maximum number of requests per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Maximum number of tokens per minute, prompts and replies together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Timeout of a call, in seconds.
    pub timeout: f64,
    /// Attempts per call [default: 8].
    pub attempts: NonZeroU32,
    /// Budget of a run in USD; it stops before the call that could exceed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<f64>,
    /// A TOML file of prices, which override the built-in list prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prices: Option<PathBuf>,
}

/// A kind of judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JudgeKind {
    /// The sandbox's two judges.
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
    /// Returns the section of the sandbox's judges.
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

    /// Returns every judge, the main one first.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        [self].into_iter().chain(self.second.as_deref())
    }

    /// Returns the judge's name in tables and files.
    pub fn name(&self) -> &str {
        let of_model = self.model().rsplit('/').next().unwrap_or_default();
        self.name.as_deref().unwrap_or(of_model)
    }

    /// Returns the model's name at the endpoint.
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

    /// Returns what determines the verdicts of each judge.
    pub(crate) fn identities(&self) -> impl Iterator<Item = JudgeIdentity<'_>> {
        self.all().map(|judge| {
            let Self { model, name, temperature, max_tokens, repeats, reasks, .. } = judge;
            JudgeIdentity {
                model: model.as_deref(),
                name: name.as_deref(),
                temperature: *temperature,
                max_tokens: *max_tokens,
                repeats: *repeats,
                reasks: *reasks,
            }
        })
    }

    /// Checks the values of the section.
    ///
    /// # Errors
    ///
    /// The first invalid key.
    pub fn check(&self) -> Result<(), Complaint> {
        self.check_alone()?;
        let Some(second) = &self.second else { return Ok(()) };
        let within = |complaint: Complaint| complaint.within("second");
        second.check_alone().map_err(within)?;
        let only = |is_given: bool, key: &'static str, reason: &str| match is_given {
            true => Err(within(Complaint::invalid(key, reason))),
            false => Ok(()),
        };
        only(second.kind != JudgeKind::Endpoint, "kind", "must be \"endpoint\", as the first judge is")?;
        only(second.second.is_some(), "second", "would be a third judge; at most two are compared")?;
        only(
            second.references.is_some(),
            "references",
            "belongs to the first judge, since both see the same references; remove the key",
        )?;
        let reason = "is also the first judge's name, and names files; set judge.second.name to another";
        only(second.name() == self.name(), "name", reason)
    }

    fn check_alone(&self) -> Result<(), Complaint> {
        let of_endpoint = self.kind == JudgeKind::Endpoint;
        for (key, is_given) in [("base_url", self.base_url.is_some()), ("model", self.model.is_some())] {
            if of_endpoint && !is_given {
                return Err(Complaint::invalid(
                    key,
                    "is missing; judge.kind = \"endpoint\" calls a model at its address",
                ));
            }
        }
        if !of_endpoint && *self != (Self { repeats: self.repeats, ..Self::sandbox() }) {
            let only =
                "must be the table's only key besides repeats for \"sandbox\", whose judges need no address";
            return Err(Complaint::invalid("kind", only));
        }
        let named = self.name();
        if of_endpoint && (named.is_empty() || named.starts_with('.') || named.contains(['/', '\\'])) {
            let reason =
                format!("must be a valid file name, and `{named}` is not; set judge.name to a plain name");
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

    /// Returns the timeout; `None` if it is not a duration.
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
