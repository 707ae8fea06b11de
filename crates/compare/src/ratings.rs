//! People's ratings of some answers, and the subset of questions to rate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand::seq::SliceRandom as _;
use seeds::Seeds;

use crate::{Error, Scores, Source, read_scores};

/// People's ratings of the answers to some questions.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratings {
    /// The sum and number of ratings of each answer.
    sums: BTreeMap<Answer, (f64, usize)>,
    /// The scorer that takes the people's place, if any.
    scorer: Option<String>,
}

/// A rated answer: arm, seed, question, turn.
pub type Answer = [String; 4];

/// A question with its category, if it has one.
pub type QuestionCategory = (String, Option<String>);

impl Ratings {
    /// Reads a file of ratings: `arm`, `question`, `score`, and `seed`, `turn` and `rater` where there are several.
    ///
    /// # Errors
    ///
    /// Those of [`read_scores`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let scores = read_scores(&[Source { path: path.to_owned(), arm: None, seed: None }])?;
        Ok(Self::of(&scores, None, |_| true))
    }

    /// Takes the scores of `scorer`, such as the sandbox's gold quality, as the ratings of `rate` questions, drawn within
    /// categories.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] for an unknown scorer, or a number of questions that leaves fewer than two on either side.
    pub fn of_scorer(scores: &Scores, scorer: &str, rate: usize, seeds: &Seeds) -> Result<Self, Error> {
        if scores.scorers.find(scorer).is_none() {
            let known = scores.scorers().join(", ");
            return Err(Error::Argument(format!(
                "--ratings {scorer:?} is neither a file nor a scorer; the scorers are {known}"
            )));
        }
        let drawn: BTreeSet<String> =
            draw_questions(&scores.question_categories(), rate, seeds)?.into_iter().collect();
        Ok(Self::of(scores, Some(scorer), |question| drawn.contains(question)))
    }

    fn of(scores: &Scores, scorer: Option<&str>, keep: impl Fn(&str) -> bool) -> Self {
        let mut sums: BTreeMap<Answer, (f64, usize)> = BTreeMap::new();
        for row in &scores.rows {
            let answer = scores.answer(row);
            let is_of = scorer.is_none_or(|scorer| scores.scorers()[row.scorer] == scorer);
            let Some(score) = row.score.filter(|_| is_of && keep(&answer[2])) else { continue };
            let (sum, count) = sums.entry(answer).or_insert((0.0, 0));
            (*sum, *count) = (*sum + score, *count + 1);
        }
        Self { sums, scorer: scorer.map(str::to_owned) }
    }

    /// Returns the mean rating of an answer.
    pub fn of_answer(&self, answer: &Answer) -> Option<f64> {
        self.sums.get(answer).map(|(sum, count)| sum / *count as f64)
    }

    /// Returns the arms of the rated answers.
    pub fn arms(&self) -> BTreeSet<&str> {
        self.sums.keys().map(|[arm, ..]| arm.as_str()).collect()
    }

    /// Returns the number of ratings of the answers of some arms.
    pub(crate) fn count(&self, is_of: impl Fn(&str) -> bool) -> usize {
        self.sums.iter().filter(|(answer, _)| is_of(&answer[0])).map(|(_, (_, count))| count).sum()
    }

    /// Returns the scorer that takes the people's place.
    pub(crate) fn scorer(&self) -> Option<&str> {
        self.scorer.as_deref()
    }

    /// Checks that every rated answer has a score.
    pub(crate) fn check(&self, scores: &Scores) -> Result<(), Error> {
        let known: BTreeSet<Answer> = scores.rows.iter().map(|row| scores.answer(row)).collect();
        match self.sums.keys().find(|answer| !known.contains(*answer)) {
            None => Ok(()),
            Some([arm, seed, question, turn]) => Err(Error::Incomparable(format!(
                "the rating of arm {arm:?}, seed {seed:?}, question {question:?}, turn {turn:?} has no score; the \
                 ratings must name arms, seeds, questions and turns as the scores do"
            ))),
        }
    }
}

/// Draws `rate` questions, from each category in proportion to its size.
///
/// # Errors
///
/// [`Error::Argument`] unless at least two questions are drawn and two are not.
pub fn draw_questions(
    questions: &[QuestionCategory],
    rate: usize,
    seeds: &Seeds,
) -> Result<Vec<String>, Error> {
    if rate < 2 || rate + 2 > questions.len() {
        return Err(Error::Argument(format!(
            "cannot rate {rate} of {} questions: at least two are rated and two are not",
            questions.len()
        )));
    }
    let mut strata: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (question, category) in questions {
        strata.entry(category.as_deref().unwrap_or_default()).or_default().push(question);
    }
    let mut order: Vec<(&str, usize)> = Vec::new();
    for (category, members) in &mut strata {
        members.shuffle(&mut seeds.child("rated").stream(category));
        order.push((category, members.len()));
    }
    // Largest remainders; ties in a random order, so that no category is favored.
    order.shuffle(&mut seeds.stream("rated-categories"));
    let share = |size: usize| size * rate / questions.len();
    let missing = rate - order.iter().map(|(_, size)| share(*size)).sum::<usize>();
    order.sort_by_key(|(_, size)| std::cmp::Reverse(size * rate % questions.len()));
    let mut drawn: BTreeSet<&str> = BTreeSet::new();
    for (place, (category, size)) in order.iter().enumerate() {
        drawn.extend(strata[category].iter().take(share(*size) + usize::from(place < missing)));
    }
    Ok(questions
        .iter()
        .map(|(question, _)| question)
        .filter(|q| drawn.contains(q.as_str()))
        .cloned()
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_have_their_share_of_the_drawn_questions() {
        let questions: Vec<QuestionCategory> =
            (0..80).map(|question| (question.to_string(), Some(format!("c{}", question / 10)))).collect();
        let drawn = draw_questions(&questions, 20, &Seeds::new(0)).unwrap();
        assert_eq!(drawn.len(), 20);
        for category in 0..8 {
            let of =
                drawn.iter().filter(|question| question.parse::<usize>().unwrap() / 10 == category).count();
            assert!((2..=3).contains(&of), "{of} of category {category}");
        }
        assert_eq!(draw_questions(&questions, 20, &Seeds::new(0)).unwrap(), drawn);
        assert_ne!(draw_questions(&questions, 20, &Seeds::new(1)).unwrap(), drawn);
        assert!(draw_questions(&questions, 79, &Seeds::new(0)).is_err());
        assert!(draw_questions(&questions, 1, &Seeds::new(0)).is_err());
    }
}
