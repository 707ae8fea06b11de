//! The page of all questions that were answered in one folder: verdicts first, then question by question, then every claim by
//! itself, how it was done, and what it takes to do it again.

use report::page::{Report, Section};
use report::table::Table;

use crate::answer::Answer;
use crate::grid::Question;
use crate::methods::methods;
use crate::recipe::JudgeSection;
use crate::runner::Runner;
use crate::verdicts::{self, Settled};

/// The page; `opening` stands above everything else.
pub(crate) fn report(runner: &Runner, answers: Vec<Answer>, opening: Vec<Table>) -> Report {
    let settled: Vec<&Settled> = answers.iter().flat_map(|answer| &answer.settled).collect();
    let verdicts = Section {
        heading: "Verdicts".into(),
        paragraphs: vec![verdicts::tally(&settled)],
        tables: opening.clone(),
        ..Section::default()
    };
    let claims = Section {
        heading: "Claims, one by one".into(),
        pages: settled.iter().map(|claim| claim.page(runner.recipe())).collect(),
        ..Section::default()
    };
    let provenance = provenance(runner, &answers);
    let made = answers.iter().flat_map(|answer| &answer.tables);
    let files = files(opening.iter().chain(made));
    let questions: Vec<Section> = answers.into_iter().flat_map(sections).collect();
    let methods =
        Section { heading: "Methods".into(), paragraphs: methods(runner.recipe()), ..Section::default() };
    Report {
        title: "What preference data do to a policy".into(),
        lead: vec![lead(runner)],
        sections: [verdicts]
            .into_iter()
            .filter(|section| !section.tables.is_empty())
            .chain(questions)
            .chain([claims].into_iter().filter(|section| !section.pages.is_empty()))
            .chain([methods])
            .collect(),
        provenance,
        files,
    }
}

fn lead(runner: &Runner) -> String {
    let recipe = runner.recipe();
    if runner.world().is_sandbox() {
        return "This is the sandbox: an offline world whose true quality (gold) is known, so that judges can be compared \
                with it."
            .to_owned();
    }
    format!(
        "{} on the preferences of {}, judged by {} on {} questions of MT-Bench.",
        recipe.model.path,
        recipe.data.path,
        recipe.judge.all().map(JudgeSection::name).collect::<Vec<_>>().join(" and "),
        runner.world().questions().len()
    )
}

/// A question's tables, each with the paper's beside it, and sample answers.
fn sections(answer: Answer) -> [Section; 2] {
    let Answer { question, tables, mut printed, figures, samples, settled, .. } = answer;
    let claimed = settled.iter().filter_map(Settled::sentence);
    let mut beside: Vec<Table> = Vec::new();
    for table in tables {
        let number = table.id.strip_prefix("table-").and_then(|id| id.parse::<usize>().ok());
        beside.push(table);
        let ours = number.map(|number| format!("printed-{number}"));
        if let Some(at) = printed.iter().position(|table| Some(&table.id) == ours.as_ref()) {
            beside.push(printed.remove(at));
        }
    }
    // Tables of the paper that ours make one of.
    beside.extend(printed);
    [
        Section {
            heading: question.title().to_owned(),
            paragraphs: [question.lead().to_owned()].into_iter().chain(claimed).collect(),
            tables: beside,
            figures: figures.into_iter().map(|(_, svg, caption)| (svg, caption.to_owned())).collect(),
            ..Section::default()
        },
        Section {
            heading: format!("{}: sample answers", question.short_title()),
            paragraphs: vec!["The first question of each category, first turn, seed 0.".into()],
            dialogues: samples,
            ..Section::default()
        },
    ]
}

/// Recipes, world and version. One recipe serves all questions, unless one was asked at values of its own.
fn provenance(runner: &Runner, answers: &[Answer]) -> Vec<(String, String)> {
    let mut recipes: Vec<(String, String)> = Vec::new();
    for answer in answers {
        let name = answer.question.short_title();
        match recipes.iter_mut().find(|(_, recipe)| *recipe == answer.recipe) {
            Some((names, _)) => *names += &format!(", {name}"),
            None => recipes.push((format!("Recipe of {name}"), answer.recipe.clone())),
        }
    }
    recipes.push(("World".into(), runner.world().key().as_str().to_owned()));
    recipes.push(("Version".into(), env!("CARGO_PKG_VERSION").to_owned()));
    recipes
}

/// What lies beside the page.
fn files<'a>(tables: impl Iterator<Item = &'a Table>) -> Vec<(String, String)> {
    let mut files = vec![
        ("every score of every turn".to_owned(), "results.parquet".to_owned()),
        ("what was measured of each policy beside its scores".to_owned(), "policies.parquet".to_owned()),
    ];
    files.extend(tables.map(|table| (table.title.clone(), format!("tables/{}.csv", table.id))));
    files
}

impl Question {
    /// What stands before the colon of its title.
    pub(crate) fn short_title(self) -> &'static str {
        self.title().split(':').next().unwrap_or_default()
    }

    fn title(self) -> &'static str {
        match self {
            Self::Acquisition => "RQ1: how preferences were acquired",
            Self::Volume => "RQ2: how many preferences",
            Self::Quality => "RQ3: how noisy the labels",
            Self::Overfitting => "RQ4: how long to train",
            Self::Strength => "Appendix A.1: how strong the pull to the reference",
            Self::Tuned => "Tables 8 and 9: at the tuned β",
            Self::EqualSteps => "Beyond RQ2: volume at equal steps",
            Self::RobustLosses => "Beyond RQ3: losses made for flipped labels",
            Self::LongTraining => "Beyond RQ4: training for too long",
            Self::MixedLabels => "Beyond RQ1: mixed labels, and where annotators agree",
        }
    }

    fn lead(self) -> &'static str {
        match self {
            Self::Acquisition => {
                "One supervised policy, optimised on the same pairs as different annotators label them."
            }
            Self::Volume => "The same policy, optimised on nested shares of the pairs.",
            Self::Quality => "The same policy, optimised on labels of which a share is swapped at random.",
            Self::Overfitting => "Training loss and scores at checkpoints of the same runs.",
            Self::Strength => "Four settings at every β, and which β each would choose.",
            Self::Tuned => "Volume, noise and checkpoints at the β that the sweep chooses.",
            Self::EqualSteps => {
                "Nested shares of the pairs, smaller ones gone through more often: as many optimiser steps for all."
            }
            Self::RobustLosses => {
                "DPO, cDPO, robust DPO and KTO on labels of which a share is swapped at random."
            }
            Self::MixedLabels => {
                "Two annotators' labels of the same pairs: each alone, mixed record by record, and on the records where both say the \
                 same or not."
            }
            Self::LongTraining => {
                "The runs of RQ4 for more epochs; the paper suspects that its two to three were too few to overfit."
            }
        }
    }
}
