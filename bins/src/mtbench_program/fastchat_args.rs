//! FastChat's spellings of options, next to our own.

use clap::{Args, ValueEnum};

use super::ModeArg;

/// `--mode` has two meanings: how verdicts are parsed, and in FastChat which judgments there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeOrGames {
    /// As FastChat parses verdicts and aggregates scores, for comparison with published numbers
    Fastchat,
    /// The last verdict counts, on the scale only, each once; missing ratings are shown
    Strict,
    /// FastChat's spelling: each answer by itself
    Single,
    /// FastChat's spelling: each model's answers against the baseline's
    PairwiseBaseline,
    /// FastChat's spelling: each model's answers against every other's
    PairwiseAll,
}

/// FastChat's kinds of judgments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FastChatMode {
    Single,
    PairwiseBaseline,
    PairwiseAll,
}

/// `--mode`, which may be given twice: once for each meaning.
#[derive(Debug, Args)]
pub(super) struct ModeArgs {
    /// How verdicts are parsed and scores are aggregated; also takes FastChat's --mode [default: strict]
    #[arg(long, value_enum)]
    mode: Vec<ModeOrGames>,
}

impl ModeArgs {
    /// Returns how verdicts are parsed.
    pub(super) fn parsing(&self) -> ModeArg {
        let parsing = self.mode.iter().rev().find_map(|mode| match mode {
            ModeOrGames::Fastchat => Some(ModeArg::Fastchat),
            ModeOrGames::Strict => Some(ModeArg::Strict),
            _ => None,
        });
        parsing.unwrap_or(ModeArg::Strict)
    }

    /// Returns the kind of judgments, if FastChat's spelling is used.
    pub(super) fn games(&self) -> Option<FastChatMode> {
        self.mode.iter().rev().find_map(|mode| match mode {
            ModeOrGames::Single => Some(FastChatMode::Single),
            ModeOrGames::PairwiseBaseline => Some(FastChatMode::PairwiseBaseline),
            ModeOrGames::PairwiseAll => Some(FastChatMode::PairwiseAll),
            _ => None,
        })
    }
}

/// Names of models.
#[derive(Debug, Args)]
pub(super) struct ModelArgs {
    /// These models only [default: all in the folder]
    #[arg(long = "model-id", value_name = "ID")]
    models: Vec<String>,
    /// FastChat's spelling: several models after one option
    #[arg(long, value_name = "ID", num_args = 1..)]
    model_list: Vec<String>,
}

impl ModelArgs {
    /// Returns the named models; none for all.
    pub(super) fn named(&self) -> Vec<String> {
        [&self.models[..], &self.model_list].concat()
    }
}
