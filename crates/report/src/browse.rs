//! Self-contained HTML pages to browse questions, answers and judgments.

mod page;

use crate::figure::Svg;
use crate::table::Table;

/// A page with a list of questions, filtered by category, score and text, next to one question. Without scripts it shows
/// all questions.
///
/// All text is plain; markup in it is shown literally.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Browser {
    /// The page's title.
    pub title: String,
    /// The lead, in one or two sentences.
    pub lead: String,
    /// The models, in the order of their columns.
    pub models: Vec<String>,
    /// The range of scores.
    pub scale: (f64, f64),
    /// Tables of the overview.
    pub tables: Vec<Table>,
    /// Figures of the overview, with their captions.
    pub figures: Vec<(Svg, String)>,
    /// The questions, in the order of the list.
    pub questions: Vec<BrowsedQuestion>,
}

/// A question with its answers and judgments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrowsedQuestion {
    /// Its id.
    pub id: String,
    /// Its category.
    pub category: String,
    /// A score of each model for the list, in the order of [`Browser::models`].
    pub scores: Vec<Option<f64>>,
    /// Its turns.
    pub turns: Vec<BrowsedTurn>,
}

/// One turn with its answers and judgments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrowsedTurn {
    /// The user's message.
    pub prompt: String,
    /// The reference answer.
    pub reference: Option<String>,
    /// The models' answers, in the order of [`Browser::models`]; `None` without an answer.
    pub answers: Vec<Option<BrowsedAnswer>>,
    /// Comparisons of two models.
    pub comparisons: Vec<BrowsedComparison>,
}

/// An answer with its verdicts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrowsedAnswer {
    /// The answer.
    pub text: String,
    /// Its verdicts.
    pub verdicts: Vec<BrowsedVerdict>,
}

/// A judge's verdict on one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrowsedVerdict {
    /// The judge.
    pub judge: String,
    /// The score; `None` without a verdict.
    pub score: Option<f64>,
    /// The judge's text.
    pub text: String,
}

/// A judge's verdict on two answers in both orders.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrowsedComparison {
    /// The judge.
    pub judge: String,
    /// The outcome: the winner's name, `tie`, or the reason of its absence.
    pub outcome: String,
    /// For each game the first model, the second model, and the judge's text.
    pub games: Vec<(String, String, String)>,
}

impl Browser {
    /// Returns the page: one file without outside resources.
    pub fn to_html(&self) -> String {
        page::render(self)
    }
}
