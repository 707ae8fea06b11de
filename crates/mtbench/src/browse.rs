//! A page to browse a benchmark's folder.

use std::collections::BTreeMap;

use report::browse::{
    BrowsedAnswer, BrowsedComparison, BrowsedQuestion, BrowsedTurn, BrowsedVerdict, Browser,
};
use report::figure::Svg;
use report::table::Table;

use crate::question_id::question_label;
use crate::tables::ModelScores;
use crate::{Answer, Judgment, PairJudgment, Question, Rating, Winner};

/// The content of a page.
#[derive(Clone, Copy, Debug)]
pub struct Browsed<'a> {
    /// The questions.
    pub questions: &'a [Question],
    /// Each model's scores, in the order of the columns.
    pub scores: &'a [ModelScores],
    /// All answers of those models.
    pub answers: &'a [Answer],
    /// The judge's references.
    pub references: &'a [Answer],
    /// The judgments, parsed in the mode of the scores.
    pub judgments: &'a [Judgment],
    /// The comparisons, parsed in that mode.
    pub comparisons: &'a [PairJudgment],
}

/// Returns the page, with `tables` and `figures` in its overview.
pub fn browser(
    title: &str,
    lead: &str,
    shown: &Browsed<'_>,
    tables: Vec<Table>,
    figures: Vec<(Svg, String)>,
) -> Browser {
    let models: Vec<String> = shown.scores.iter().map(|(model, _)| model.clone()).collect();
    let by_question = |answers: &'_ [Answer]| -> BTreeMap<(String, u64), Vec<String>> {
        let answers = answers.iter();
        answers.map(|a| ((a.model_id.clone(), a.question_id), a.turns().to_vec())).collect()
    };
    let answers = by_question(shown.answers);
    let references: BTreeMap<u64, &[String]> =
        shown.references.iter().map(|reference| (reference.question_id, reference.turns())).collect();
    let mut verdicts: BTreeMap<(&str, u64, u8), Vec<BrowsedVerdict>> = BTreeMap::new();
    for judgment in shown.judgments {
        let key = (judgment.model.as_str(), judgment.question_id, judgment.turn);
        verdicts.entry(key).or_default().push(BrowsedVerdict {
            judge: judgment.judge.judge.clone(),
            score: judgment.score().map(Rating::value),
            text: judgment.judgment.clone(),
        });
    }
    let question = |question: &Question| {
        let id = question.question_id;
        let turn = |(turn, prompt): (u8, &String)| {
            let at = usize::from(turn) - 1;
            let answer = |model: &String| {
                let text = answers.get(&(model.clone(), id))?.get(at)?.clone();
                let verdicts = verdicts.get(&(model.as_str(), id, turn)).cloned().unwrap_or_default();
                Some(BrowsedAnswer { text, verdicts })
            };
            let compared = shown.comparisons.iter().filter(|row| row.question_id == id && row.turn == turn);
            BrowsedTurn {
                prompt: prompt.clone(),
                reference: references.get(&id).and_then(|turns| turns.get(at)).cloned(),
                answers: models.iter().map(answer).collect(),
                comparisons: compared.map(comparison).collect(),
            }
        };
        BrowsedQuestion {
            id: question_label(id),
            category: question.category.clone(),
            scores: shown.scores.iter().map(|(_, scores)| scores.question(id)).collect(),
            turns: (1..).zip(&question.turns).map(turn).collect(),
        }
    };
    Browser {
        title: title.to_owned(),
        lead: lead.to_owned(),
        scale: (1.0, 10.0),
        tables,
        figures,
        questions: shown.questions.iter().map(question).collect(),
        models: models.clone(),
    }
}

fn comparison(row: &PairJudgment) -> BrowsedComparison {
    let outcome = match row.winner() {
        Winner::Model1 => row.model_1.clone(),
        Winner::Model2 => row.model_2.clone(),
        Winner::Tie if row.g1_winner == row.g2_winner => "tie".to_owned(),
        Winner::Tie => "tie (the two orders disagree)".to_owned(),
        Winner::Error => "no verdict".to_owned(),
    };
    let game = |first: &str, second: &str, said: &str| (first.to_owned(), second.to_owned(), said.to_owned());
    BrowsedComparison {
        judge: row.judge.judge.clone(),
        outcome,
        games: vec![
            game(&row.model_1, &row.model_2, &row.g1_judgment),
            game(&row.model_2, &row.model_1, &row.g2_judgment),
        ],
    }
}
