//! The report: answers and verdicts, then each question, each claim, the methods, and the provenance.

use experiment::setup::JudgeSection;
use report::figure::Svg;
use report::page::{Report, Section};
use report::table::Table;

use crate::answer::Answered;
use crate::headline::{ANSWERS, Headlined};
use crate::methods::methods;
use crate::study::Study;
use crate::verdicts::{self, Settled};

/// The caption of the figure of the answers.
const CAPTION: &str = "The difference that answers each question, as judged. Numbers are in the table above.";

/// Returns the report, which begins with the figure of the answers and the tables `opening`.
pub(crate) fn report(
    study: &Study,
    answers: Vec<Answered>,
    picture: Option<Svg>,
    opening: Vec<Table>,
) -> Report {
    let sentences = answers.iter().flat_map(|answer| &answer.headlines).filter_map(Headlined::sentence);
    let (plain, others): (Vec<Table>, Vec<Table>) =
        opening.iter().cloned().partition(|table| table.id == ANSWERS);
    let plain = Section {
        heading: "Answers".into(),
        paragraphs: sentences.collect(),
        tables: plain,
        figures: picture.into_iter().map(|svg| (svg, CAPTION.to_owned())).collect(),
        ..Section::default()
    };
    let settled: Vec<&Settled> = answers.iter().flat_map(|answer| &answer.settled).collect();
    let verdicts = Section {
        heading: "Verdicts".into(),
        paragraphs: vec![verdicts::tally(&settled)],
        tables: others,
        ..Section::default()
    };
    let claims = Section {
        heading: "Claims".into(),
        pages: settled.iter().map(|claim| claim.page(study.runner().setup())).collect(),
        ..Section::default()
    };
    let provenance = provenance(study, &answers);
    let made = answers.iter().flat_map(|answer| &answer.tables);
    let files = files(opening.iter().chain(made));
    let questions: Vec<Section> = answers.into_iter().flat_map(sections).collect();
    let methods =
        Section { heading: "Methods".into(), paragraphs: methods(study.recipe()), ..Section::default() };
    Report {
        title: "Effects of preference data on a policy".into(),
        lead: vec![lead(study)],
        sections: [plain, verdicts]
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

fn lead(study: &Study) -> String {
    let recipe = study.recipe();
    if recipe.is_sandbox() {
        return "This study ran in the sandbox, whose gold quality is known, so that judges can be compared with the ground truth."
            .to_owned();
    }
    format!(
        "{} on the preferences of {}, judged by {} on {} questions of MT-Bench.",
        recipe.model.path,
        recipe.data.path,
        recipe.judge.all().map(JudgeSection::name).collect::<Vec<_>>().join(" and "),
        study.runner().source().questions().len()
    )
}

/// Returns a question's section, with the paper's tables next to its own, and its sample answers.
fn sections(answer: Answered) -> [Section; 2] {
    let Answered { question, tables, mut printed, figures, samples, settled, .. } = answer;
    let claimed = settled.iter().filter_map(Settled::sentence);
    let mut shown: Vec<Table> = Vec::new();
    for table in tables {
        let number = table.id.strip_prefix("table-").and_then(|id| id.parse::<usize>().ok());
        shown.push(table);
        let ours = number.map(|number| format!("printed-{number}"));
        if let Some(at) = printed.iter().position(|table| Some(&table.id) == ours.as_ref()) {
            shown.push(printed.remove(at));
        }
    }
    // Tables of the paper without a counterpart of the same number.
    shown.extend(printed);
    [
        Section {
            heading: question.about().title.to_owned(),
            paragraphs: [question.about().help.to_owned()].into_iter().chain(claimed).collect(),
            tables: shown,
            figures: figures.into_iter().map(|figure| (figure.svg, figure.caption.to_owned())).collect(),
            ..Section::default()
        },
        Section {
            heading: format!("{}: sample answers", question.about().short_title()),
            paragraphs: vec!["The first question of each category, first turn, seed 0.".into()],
            dialogues: samples,
            ..Section::default()
        },
    ]
}

/// Returns recipes, data source and version. Questions with the same recipe share an entry.
fn provenance(study: &Study, answers: &[Answered]) -> Vec<(String, String)> {
    let mut recipes: Vec<(String, String)> = Vec::new();
    for answer in answers {
        let name = answer.question.about().short_title();
        match recipes.iter_mut().find(|(_, recipe)| *recipe == answer.recipe) {
            Some((names, _)) => *names += &format!(", {name}"),
            None => recipes.push((format!("Recipe of {name}"), answer.recipe.clone())),
        }
    }
    recipes.push(("Data source".into(), study.runner().source().key().as_str().to_owned()));
    recipes.push(("Version".into(), env!("CARGO_PKG_VERSION").to_owned()));
    recipes
}

/// Returns the files next to the report.
fn files<'a>(tables: impl Iterator<Item = &'a Table>) -> Vec<(String, String)> {
    let mut files = vec![
        ("every score of every turn".to_owned(), "results.parquet".to_owned()),
        ("other measurements of each policy".to_owned(), "policies.parquet".to_owned()),
    ];
    files.extend(tables.map(|table| (table.title.clone(), format!("tables/{}.csv", table.id))));
    files
}
