//! The programs by name, alone and as commands of `preflab`.

use std::env;
use std::process::ExitCode;

use clap::{ArgMatches, Args as _, ColorChoice, Command, CommandFactory, FromArgMatches, ValueEnum as _};
use study::Question;
use study::questions::{Acquisition, Noise, Overfitting, Volume};

use crate::agreement_program::AgreementArgs;
use crate::annotate_program::Annotate;
use crate::audit_program::AuditArgs;
use crate::console_args::ConsoleArgs;
use crate::mtbench_program::{MtBench, mtbench};
use crate::program::{Logging, run};
use crate::study_program::{QuestionArgs, TablesArgs};
use crate::train_program::{LOSSES, TrainArgs};

/// A program. A binary refers to one, so that only its code is linked.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    /// Its name as a command of `preflab`.
    command_name: &'static str,
    command: fn() -> Command,
    run: fn(&ArgMatches, ConsoleArgs) -> ExitCode,
    examples: &'static str,
}

/// `pref-train`.
pub static PREF_TRAIN: Program = Program {
    name: "pref-train",
    command_name: "train",
    command: TrainArgs::command,
    run: |matches, console| parsed::<TrainArgs>(matches).run(console),
    examples: "\
Examples:
  pref-train --recipe my.toml
      Train as the recipe says; --plan first shows steps, memory and time
  pref-train --recipe my.toml --set loss.kind=ipo --set output.dir=runs/ipo
      The same with another loss",
};

/// `study`.
pub static STUDY: Program = Program {
    name: "study",
    command_name: "study",
    command: TablesArgs::command,
    run: |matches, console| parsed::<TablesArgs>(matches).run(console),
    examples: "\
Examples:
  study --preset sandbox --out runs/sandbox --brief
      Ask the paper's questions in the sandbox, in minutes
  study --recipe my-study.toml --tables 3,4 --plan
      Show the work of two tables; nothing runs",
};

/// `rq1`.
pub static RQ1: Program = Program {
    name: "rq1",
    command_name: "rq1",
    command: || {
        question_command(
            &Acquisition,
            "Does training on preferences help, and whose labels make the better model?",
        )
    },
    run: |matches, console| parsed::<QuestionArgs>(matches).run(&Acquisition, console),
    examples: "\
Example:
  rq1 --preset sandbox --set 'study.annotators=[\"human\", \"gpt-4-turbo\"]' --out runs/rq1
      Compare the labels of two annotators in the sandbox",
};

/// `rq2`.
pub static RQ2: Program = Program {
    name: "rq2",
    command_name: "rq2",
    command: || question_command(&Volume, "How many preference pairs are enough?"),
    run: |matches, console| parsed::<QuestionArgs>(matches).run(&Volume, console),
    examples: "\
Example:
  rq2 --preset sandbox --set 'study.volumes=[1.0, 0.5, 0.1]' --out runs/rq2
      Compare a half and a tenth of the pairs with all of them",
};

/// `rq3`.
pub static RQ3: Program = Program {
    name: "rq3",
    command_name: "rq3",
    command: || {
        question_command(&Noise, "How noisy may labels be, and does cDPO train better on noisy ones?")
    },
    run: |matches, console| parsed::<QuestionArgs>(matches).run(&Noise, console),
    examples: "\
Example:
  rq3 --preset sandbox --set 'study.flip_rates=[0.0, 0.2, 0.4]' --out runs/rq3
      Flip none, a fifth and two fifths of the labels",
};

/// `rq4`.
pub static RQ4: Program = Program {
    name: "rq4",
    command_name: "rq4",
    command: || {
        question_command(
            &Overfitting,
            "Does training overfit: is an earlier checkpoint better than the last?",
        )
    },
    run: |matches, console| parsed::<QuestionArgs>(matches).run(&Overfitting, console),
    examples: "\
Example:
  rq4 --preset sandbox --set 'study.losses=[\"dpo\"]' --out runs/rq4
      Score DPO's checkpoints",
};

/// `audit`.
pub static AUDIT: Program = Program {
    name: "audit",
    command_name: "audit",
    command: AuditArgs::command,
    // The audit itself reports what the reader notes.
    run: |matches, console| {
        run(Logging::shown("info,pref_data=error"), console, |_| parsed::<AuditArgs>(matches).run())
    },
    examples: "\
Examples:
  audit pairs.jsonl --held-out test.jsonl
      Say whether the pairs are good enough, and look for leaked prompts
  audit clean pairs.jsonl --out clean.jsonl
      Write the pairs without the faults",
};

/// `mtbench`.
pub static MTBENCH: Program = Program {
    name: "mtbench",
    command_name: "mtbench",
    command: MtBench::command,
    run: |matches, console| {
        let args = parsed::<MtBench>(matches);
        run(Logging::shown(args.logged()), console, |signals| mtbench(&args, signals))
    },
    examples: "\
Examples:
  mtbench answer --data bench --model runs/mine/model --model-id mine
      Answer the questions with a model folder
  mtbench judge --data bench --judge gpt-4 --base-url https://api.openai.com/v1 --api-key-env OPENAI_API_KEY
      Judge all answers on file",
};

/// `annotate`.
pub static ANNOTATE: Program = Program {
    name: "annotate",
    command_name: "annotate",
    command: Annotate::command,
    run: |matches, console| {
        let args = parsed::<Annotate>(matches);
        run(Logging::shown(args.logged()), console, |signals| args.run(signals))
    },
    examples: "\
Examples:
  annotate stats labels.jsonl
      Show bias and agreement of the annotators
  annotate show labels.jsonl
      Show single records with their labels",
};

/// `agreement`.
pub static AGREEMENT: Program = Program {
    name: "agreement",
    command_name: "agreement",
    command: AgreementArgs::command,
    run: |matches, console| parsed::<AgreementArgs>(matches).run(console),
    examples: "\
Examples:
  agreement make --questions question.jsonl --model-1 dpo.jsonl --model-2 sft.jsonl --raters ann,bob,cid --out study
      Write a blinded sheet for each rater
  agreement report ratings.csv --model-1 DPO --model-2 SFT
      Print wins, agreement, and whether the difference could be chance",
};

static PROGRAMS: [&Program; 10] =
    [&PREF_TRAIN, &STUDY, &RQ1, &RQ2, &RQ3, &RQ4, &AUDIT, &MTBENCH, &ANNOTATE, &AGREEMENT];

impl Program {
    /// Returns the arguments, with those of every program.
    fn arguments(&self) -> Command {
        let command = ConsoleArgs::augment_args((self.command)()).name(self.name).after_help(self.examples);
        match self.name {
            "pref-train" => command.after_long_help(format!("{}\n\n{LOSSES}", self.examples)),
            _ => command,
        }
    }

    fn run(&self, matches: &ArgMatches) -> ExitCode {
        (self.run)(matches, parsed(matches))
    }
}

fn question_command(question: &dyn Question, asks: &'static str) -> Command {
    QuestionArgs::command().about(asks).long_about(format!("{asks}\n\n{}", question.about().help))
}

/// Reads arguments that clap has checked.
fn parsed<T: FromArgMatches>(matches: &ArgMatches) -> T {
    T::from_arg_matches(matches).unwrap_or_else(|error| error.exit())
}

/// Runs a program.
pub fn main(program: &Program) -> ExitCode {
    program.run(&program.arguments().color(color()).get_matches())
}

/// Runs `preflab`, whose commands are the programs.
pub fn preflab() -> ExitCode {
    let matches = preflab_command().color(color()).get_matches();
    let chosen = matches.subcommand().and_then(|(name, matches)| {
        Some((PROGRAMS.iter().find(|program| program.command_name == name)?, matches))
    });
    let (program, matches) = chosen.expect("clap requires one of the commands");
    program.run(matches)
}

/// Returns the commands of all programs, for completions and manual pages.
pub fn commands() -> Vec<Command> {
    PROGRAMS.iter().map(|program| program.arguments()).chain([preflab_command()]).collect()
}

fn preflab_command() -> Command {
    let command = Command::new("preflab").version(env!("CARGO_PKG_VERSION")).subcommand_required(true);
    let command = command
        .arg_required_else_help(true)
        .about("Train on preferences, have answers judged, and know whether the difference is real");
    command
        .subcommands(PROGRAMS.iter().map(|program| program.arguments().name(program.command_name)))
        .after_help("Each command is also a program: `preflab train` is `pref-train`, the others have their own names.")
}

/// Returns the value of `--color`, which the help needs before the arguments are read.
fn color() -> ColorChoice {
    let mut arguments = env::args().skip_while(|argument| !argument.starts_with("--color"));
    let value = arguments.next().and_then(|argument| match argument.strip_prefix("--color=") {
        Some(value) => Some(value.to_owned()),
        None => arguments.next(),
    });
    value.and_then(|value| ColorChoice::from_str(&value, true).ok()).unwrap_or(ColorChoice::Auto)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_all_programs_are_consistent() {
        for command in commands() {
            command.debug_assert();
        }
    }

    #[test]
    fn every_example_is_accepted() {
        for program in PROGRAMS {
            let lines = program.examples.lines().filter_map(|line| line.strip_prefix("  "));
            let typed: Vec<&str> = lines.filter(|line| !line.starts_with(' ')).collect();
            assert!(!typed.is_empty(), "{} has no example", program.name);
            for line in typed {
                let words = words(line);
                assert_eq!(words[0], program.name);
                let accepted = program.arguments().try_get_matches_from(&words);
                assert!(accepted.is_ok(), "{line}: {}", accepted.unwrap_err());
                let of_preflab =
                    [&["preflab".to_owned(), program.command_name.to_owned()], &words[1..]].concat();
                assert!(preflab_command().try_get_matches_from(of_preflab).is_ok(), "{line}");
            }
        }
    }

    /// Splits a line as a shell does.
    fn words(line: &str) -> Vec<String> {
        let quoted = line.split('\'').enumerate();
        let words = quoted.flat_map(|(at, part)| match at % 2 {
            0 => part.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.collect()
    }
}
