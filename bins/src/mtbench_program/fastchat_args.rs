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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::mtbench_program::MtBench;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        mode: ModeArgs,
        #[command(flatten)]
        models: ModelArgs,
    }

    fn line(arguments: &str) -> Line {
        Line::try_parse_from(["line"].into_iter().chain(arguments.split_whitespace())).unwrap()
    }

    #[test]
    fn both_meanings_of_mode_are_understood() {
        let of = |arguments: &str| {
            let Line { mode, .. } = line(arguments);
            (matches!(mode.parsing(), ModeArg::Fastchat), mode.games())
        };
        assert_eq!(of(""), (false, None));
        assert_eq!(of("--mode fastchat"), (true, None));
        assert_eq!(of("--mode pairwise-all"), (false, Some(FastChatMode::PairwiseAll)));
        assert_eq!(of("--mode single --mode fastchat"), (true, Some(FastChatMode::Single)));
        assert_eq!(of("--mode pairwise-baseline"), (false, Some(FastChatMode::PairwiseBaseline)));
    }

    #[test]
    fn a_list_of_models_is_one_option() {
        assert_eq!(line("--model-list a b").models.named(), ["a", "b"]);
        assert_eq!(line("--model-id a --model-list b --mode strict").models.named(), ["a", "b"]);
        assert!(line("").models.named().is_empty());
    }

    #[test]
    fn commands_of_fastchats_guide_are_parsed() {
        for command in [
            "judge --model-list vicuna-13b alpaca-13b --parallel 2 --judge-model gpt-4 --bench-name mt_bench --base-url http://localhost",
            "judge --mode pairwise-all --model-list vicuna-13b alpaca-13b --bench-name mt_bench --replay gpt-4",
            "judge --mode pairwise-baseline --baseline-model alpaca-13b --bench-name mt_bench --replay gpt-4",
            "show --mode pairwise-baseline --baseline-model alpaca-13b --bench-name mt_bench",
            "show --bench-name mt_bench --judge-model gpt-4 --model-list vicuna-13b alpaca-13b",
            "answer --model-path vicuna --model-id vicuna-13b --bench-name mt_bench --max-new-token 1024",
        ] {
            let parsed = MtBench::try_parse_from(["mtbench"].into_iter().chain(command.split_whitespace()));
            assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
        }
        let both = "show --bench-name mt_bench --data data/mt_bench".split_whitespace();
        assert!(MtBench::try_parse_from(["mtbench"].into_iter().chain(both)).is_err());
    }
}
