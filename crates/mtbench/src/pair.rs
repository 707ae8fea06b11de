//! Comparisons, as FastChat's `model_judgment/JUDGE_pair.jsonl` holds them: two models, two games with swapped positions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::judgment::{Transcripts, repeat_of};
use crate::{
    Answer, Draw, Error, JudgePrompt, JudgePrompts, JudgeRequest, JudgedBy, Mode, Question, Rival,
    python_json::finite,
};

/// Two models' answers to one turn, compared twice. Field order is that of FastChat's lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairJudgment {
    /// The question.
    pub question_id: u64,
    /// The model that is assistant A in the first game and B in the second.
    pub model_1: String,
    /// The other model.
    pub model_2: String,
    /// Who won the first game.
    pub g1_winner: Winner,
    /// Who won the second game.
    pub g2_winner: Winner,
    /// Who judged, and by which prompt.
    pub judge: JudgedBy,
    /// What the judge was asked in the first game.
    pub g1_user_prompt: String,
    /// What the judge said in the first game.
    pub g1_judgment: String,
    /// What the judge was asked in the second game.
    pub g2_user_prompt: String,
    /// What the judge said in the second game.
    pub g2_judgment: String,
    /// The turn that is judged: 1 or 2.
    pub turn: u8,
    /// When it was judged, in seconds since 1970.
    #[serde(serialize_with = "finite")]
    pub tstamp: f64,
    /// Fields that other writers add: kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Who won a game.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// The first model.
    #[serde(rename = "model_1")]
    Model1,
    /// The second model.
    #[serde(rename = "model_2")]
    Model2,
    /// Neither.
    Tie,
    /// No verdict could be read.
    Error,
}

/// Whom a judge prefers in one game.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PairVerdict {
    /// The assistant shown first.
    A,
    /// The assistant shown second.
    B,
    /// Neither: the prompts call it C.
    Tie,
}

/// The verdict that `judgment` gives, or `None` if it gives none.
///
/// In [`Mode::FastChat`] a text that holds several verdicts counts for A before B before a tie, wherever they stand; in
/// [`Mode::Strict`] the last one counts.
///
/// ```
/// use mtbench::{Mode, PairVerdict, parse_pair_verdict};
///
/// let judgment = "At first [[A]] seems better, but [[B]] is right.";
/// assert_eq!(parse_pair_verdict(judgment, Mode::FastChat), Some(PairVerdict::A));
/// assert_eq!(parse_pair_verdict(judgment, Mode::Strict), Some(PairVerdict::B));
/// ```
pub fn parse_pair_verdict(judgment: &str, mode: Mode) -> Option<PairVerdict> {
    let known = [("[[A]]", PairVerdict::A), ("[[B]]", PairVerdict::B), ("[[C]]", PairVerdict::Tie)];
    match mode {
        Mode::FastChat => known.into_iter().find(|(sign, _)| judgment.contains(sign)),
        Mode::Strict => known
            .into_iter()
            .filter(|(sign, _)| judgment.contains(sign))
            .max_by_key(|(sign, _)| judgment.rfind(sign)),
    }
    .map(|(_, verdict)| verdict)
}

impl Winner {
    /// Who won game `game` (1 or 2) by that verdict: in the second game positions are swapped.
    pub fn of_game(game: u8, verdict: Option<PairVerdict>) -> Self {
        match (verdict, game) {
            (None, _) => Self::Error,
            (Some(PairVerdict::Tie), _) => Self::Tie,
            (Some(PairVerdict::A), 1) | (Some(PairVerdict::B), 2) => Self::Model1,
            (Some(_), _) => Self::Model2,
        }
    }

    /// The winner as it is called when the models change places.
    #[must_use]
    pub fn swapped(self) -> Self {
        match self {
            Self::Model1 => Self::Model2,
            Self::Model2 => Self::Model1,
            other => other,
        }
    }
}

impl PairJudgment {
    /// Who won both games taken together: a tie unless one model won both, and nobody ([`Winner::Error`]) where either game
    /// has no verdict.
    pub fn winner(&self) -> Winner {
        match (self.g1_winner, self.g2_winner) {
            (Winner::Error, _) | (_, Winner::Error) => Winner::Error,
            (first, second) if first == second => first,
            _ => Winner::Tie,
        }
    }

    /// The same judgment with its winners read from the texts again: for files whose verdicts were read in another mode.
    #[must_use]
    pub fn reread(self, mode: Mode) -> Self {
        let winner = |game, text: &str| Winner::of_game(game, parse_pair_verdict(text, mode));
        let (g1_winner, g2_winner) = (winner(1, &self.g1_judgment), winner(2, &self.g2_judgment));
        Self { g1_winner, g2_winner, ..self }
    }

    /// What a rerun replaces.
    pub(crate) fn key(&self) -> PairKey {
        PairKey {
            question_id: self.question_id,
            models: (self.model_1.clone(), self.model_2.clone()),
            judge: self.judge.clone(),
            turn: self.turn,
            repeat: repeat_of(&self.extra),
        }
    }
}

/// What tells one comparison from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PairKey {
    pub(crate) question_id: u64,
    pub(crate) models: (String, String),
    pub(crate) judge: JudgedBy,
    pub(crate) turn: u8,
    pub(crate) repeat: u32,
}

/// Which models are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Games<'a> {
    /// Every other model with this one.
    Baseline(&'a str),
    /// Each with every other.
    All,
}

/// What comparing works with, apart from the answers themselves.
#[derive(Clone, Copy, Debug)]
pub struct PairGrading<'a> {
    /// The questions to judge.
    pub questions: &'a [Question],
    /// The prompts to choose from.
    pub prompts: &'a JudgePrompts,
    /// Reference answers for the categories that [need them](Question::needs_reference).
    pub references: &'a [Answer],
    /// Which models are compared.
    pub games: Games<'a>,
}

/// A comparison to make: two calls, and the prompt by which they are recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct PairCall<'a> {
    /// What the judge sees in each game: in the second one the models have changed places.
    pub games: [JudgeRequest<'a>; 2],
    /// The prompt that was filled in.
    pub prompt: &'a JudgePrompt,
}

impl<'a> PairGrading<'a> {
    /// Every comparison that the models of `answers` take, in FastChat's order: first turns before second turns, in each of
    /// them the categories without a reference before those with one, then by question, then by model names.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`], [`Error::NoReference`], [`Error::NoPrompt`], [`Error::Template`], [`Error::Turns`].
    pub fn calls(&self, answers: &'a [Answer]) -> Result<Vec<PairCall<'a>>, Error> {
        let transcripts = Transcripts::new(answers, self.references);
        let pairs = self.pairs(&transcripts.models())?;
        let mut calls = Vec::new();
        for turn in [1, 2] {
            for with_reference in [false, true] {
                for question in self.questions {
                    let turns = question.checked_turns()?;
                    if turns < usize::from(turn) || question.needs_reference() != with_reference {
                        continue;
                    }
                    for (model_1, model_2) in &pairs {
                        let of = |model| transcripts.turns(question, model, turn);
                        let (one, two) = (of(model_1)?, of(model_2)?);
                        let prompt = self.prompts.pair(question, turn)?;
                        let game = |a: (&'a str, &'a [String]), b: (&'a str, &'a [String])| {
                            self.game(question, turn, prompt, &transcripts, a, b)
                        };
                        let games =
                            [game((model_1, one), (model_2, two))?, game((model_2, two), (model_1, one))?];
                        calls.push(PairCall { games, prompt });
                    }
                }
            }
        }
        Ok(calls)
    }

    fn pairs(&self, models: &[&'a str]) -> Result<Vec<(&'a str, &'a str)>, Error> {
        match self.games {
            Games::Baseline(baseline) => {
                let baseline =
                    models.iter().find(|model| **model == baseline).ok_or_else(|| Error::NoModel {
                        model: baseline.to_owned(),
                        known: models.iter().map(|model| (*model).to_owned()).collect(),
                    })?;
                let others = models.iter().filter(|model| *model != baseline);
                Ok(others.map(|model| (*model, *baseline)).collect())
            }
            Games::All => Ok(models
                .iter()
                .enumerate()
                .flat_map(|(i, one)| models[i + 1..].iter().map(move |two| (*one, *two)))
                .collect()),
        }
    }

    fn game(
        &self,
        question: &'a Question,
        turn: u8,
        prompt: &JudgePrompt,
        transcripts: &Transcripts<'a>,
        (model_a, a): (&'a str, &'a [String]),
        (model_b, b): (&'a str, &'a [String]),
    ) -> Result<JudgeRequest<'a>, Error> {
        let mut values: BTreeMap<&str, &str> = match (a, b, question.turns.as_slice()) {
            ([a_1, a_2], [b_1, b_2], [question_1, question_2]) => BTreeMap::from([
                ("question_1", question_1.as_str()),
                ("question_2", question_2),
                ("answer_a_1", a_1),
                ("answer_a_2", a_2),
                ("answer_b_1", b_1),
                ("answer_b_2", b_2),
            ]),
            _ => BTreeMap::from([
                ("question", question.turns[0].as_str()),
                ("answer_a", &a[0]),
                ("answer_b", &b[0]),
            ]),
        };
        values.extend(transcripts.reference(question, prompt)?);
        Ok(JudgeRequest {
            question,
            model: model_a,
            answers: a,
            rival: Some(Rival { model: model_b, answers: b }),
            turn,
            system_prompt: prompt.system_prompt.clone(),
            user_prompt: prompt.fill(&values)?,
            draw: Draw::default(),
        })
    }
}

impl PairCall<'_> {
    /// What tells this comparison by `judge` from others.
    pub(crate) fn key(&self, judge: &str) -> PairKey {
        let [first, second] = &self.games;
        PairKey {
            question_id: first.question.question_id,
            models: (first.model.to_owned(), second.model.to_owned()),
            judge: JudgedBy { judge: judge.to_owned(), prompt: self.prompt.name.clone() },
            turn: first.turn,
            repeat: first.draw.repeat,
        }
    }

    /// The record of what `judge` said in both games.
    pub fn record(self, judge: &str, said: [String; 2], mode: Mode, tstamp: f64) -> PairJudgment {
        let PairKey { question_id, models, judge, turn, repeat } = self.key(judge);
        let winner = |game, text: &str| Winner::of_game(game, parse_pair_verdict(text, mode));
        let [first, second] = self.games;
        let [g1_judgment, g2_judgment] = said;
        PairJudgment {
            question_id,
            model_1: models.0,
            model_2: models.1,
            g1_winner: winner(1, &g1_judgment),
            g2_winner: winner(2, &g2_judgment),
            judge,
            g1_user_prompt: first.user_prompt,
            g1_judgment,
            g2_user_prompt: second.user_prompt,
            g2_judgment,
            turn,
            tstamp,
            extra: crate::judgment::with_repeat(repeat),
        }
    }
}
