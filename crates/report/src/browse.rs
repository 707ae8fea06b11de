//! One self-contained HTML page to browse questions, answers side by side, and what judges said of them.

mod page;

use crate::figure::Svg;
use crate::table::Table;

/// A page with a list of questions, which can be filtered by category, score and words, and one question at a time beside
/// it. Without scripts it shows all of them below each other.
///
/// All words are plain text: what looks like markup shows as it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Browser {
    /// The page's title.
    pub title: String,
    /// What is shown, in one or two sentences.
    pub lead: String,
    /// The models, in the order of their columns.
    pub models: Vec<String>,
    /// The lowest and the highest score there can be.
    pub scale: (f64, f64),
    /// Tables of the overview.
    pub tables: Vec<Table>,
    /// Figures of the overview, with their captions.
    pub figures: Vec<(Svg, String)>,
    /// The questions, in the order of the list.
    pub questions: Vec<BrowsedQuestion>,
}

/// A question with everything that was said about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrowsedQuestion {
    /// Its id.
    pub id: String,
    /// Its category.
    pub category: String,
    /// A score of each model for the list, along [`Browser::models`].
    pub scores: Vec<Option<f64>>,
    /// Its turns.
    pub turns: Vec<BrowsedTurn>,
}

/// One turn: what was asked, what the models answered, what judges said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrowsedTurn {
    /// What the user says.
    pub prompt: String,
    /// What the judge was given as the right answer.
    pub reference: Option<String>,
    /// The models' answers, along [`Browser::models`]; none where a model has not answered.
    pub answers: Vec<Option<BrowsedAnswer>>,
    /// Comparisons of two models.
    pub comparisons: Vec<BrowsedComparison>,
}

/// An answer with its verdicts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrowsedAnswer {
    /// What the model said.
    pub text: String,
    /// What judges said of it.
    pub verdicts: Vec<BrowsedVerdict>,
}

/// What a judge said of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrowsedVerdict {
    /// The judge.
    pub judge: String,
    /// The score; none where no verdict could be read.
    pub score: Option<f64>,
    /// The judge's words.
    pub text: String,
}

/// What a judge said of two answers, shown in both orders.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrowsedComparison {
    /// The judge.
    pub judge: String,
    /// Who won: a model's name, `tie`, or why nobody did.
    pub outcome: String,
    /// For each game who was shown first, who second, and the judge's words.
    pub games: Vec<(String, String, String)>,
}

impl Browser {
    /// The page: one file without outside resources.
    pub fn to_html(&self) -> String {
        page::render(self)
    }
}
