//! Wins, losses and ties.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::pair::{PairJudgment, Winner};
use crate::pair_grading::Games;
use crate::rating::Mode;

/// Wins, losses and ties of one model, as FastChat counts them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PairScore {
    /// The model.
    pub model: String,
    /// Comparisons won in both games.
    pub win: u64,
    /// Comparisons lost in both games.
    pub loss: u64,
    /// All other comparisons.
    pub tie: u64,
}

/// The comparisons of a judge, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairScores {
    /// One row a model, by adjusted win rate, the highest first, then by name.
    pub rows: Vec<PairScore>,
    /// Comparisons left out because a game has no verdict.
    pub dropped: usize,
    /// Comparisons that a later one of the same judge, models, turn and repeat supersedes. They count in
    /// [`Mode::FastChat`] and not in [`Mode::Strict`].
    pub repeated: usize,
}

impl PairScore {
    /// Returns wins over all comparisons.
    pub fn win_rate(&self) -> Option<f64> {
        self.share(self.win as f64)
    }

    /// Returns losses over all comparisons.
    pub fn loss_rate(&self) -> Option<f64> {
        self.share(self.loss as f64)
    }

    /// Returns wins over all comparisons, where a tie is half a win.
    pub fn win_rate_adjusted(&self) -> Option<f64> {
        self.share(self.win as f64 + 0.5 * self.tie as f64)
    }

    fn share(&self, of: f64) -> Option<f64> {
        let all = self.win + self.loss + self.tie;
        (all > 0).then(|| of / all as f64)
    }
}

impl PairScores {
    /// Counts `judgments`. With a baseline only comparisons with it count, and it has no row of its own.
    ///
    /// In [`Mode::FastChat`] repeated comparisons count repeatedly; in [`Mode::Strict`] the last one counts. Both modes use
    /// the recorded winners; [`PairJudgment::reread`] parses the texts again.
    pub fn new(judgments: &[PairJudgment], games: Games<'_>, mode: Mode) -> Self {
        let mut counts: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
        let mut dropped = 0;
        let of_games: Vec<&PairJudgment> = judgments.iter().filter(|row| games.include(row)).collect();
        let repeated = of_games.len() - counted(&of_games, Mode::Strict).len();
        for judgment in counted(&of_games, mode) {
            let models = [judgment.model_1.as_str(), &judgment.model_2];
            // Win, loss, tie of the first model; the second has the mirror image.
            let of_first = match judgment.winner() {
                Winner::Error => {
                    dropped += 1;
                    continue;
                }
                Winner::Model1 => [1, 0, 0],
                Winner::Model2 => [0, 1, 0],
                Winner::Tie => [0, 0, 1],
            };
            let of_second = [of_first[1], of_first[0], of_first[2]];
            for (model, more) in models.into_iter().zip([of_first, of_second]) {
                let count = counts.entry(model).or_default();
                count.iter_mut().zip(more).for_each(|(count, more)| *count += more);
            }
        }
        if let Games::Baseline(baseline) = games {
            counts.remove(baseline);
        }
        let mut rows: Vec<PairScore> = counts
            .into_iter()
            .map(|(model, [win, loss, tie])| PairScore { model: model.to_owned(), win, loss, tie })
            .collect();
        rows.sort_by(|a, b| {
            b.win_rate_adjusted().partial_cmp(&a.win_rate_adjusted()).expect("shares are finite")
        });
        Self { rows, dropped, repeated }
    }
}

impl Games<'_> {
    fn include(self, judgment: &PairJudgment) -> bool {
        match self {
            Self::Baseline(baseline) => [&judgment.model_1, &judgment.model_2].iter().any(|m| *m == baseline),
            Self::All => true,
        }
    }
}

/// The judgments that count in `mode`.
pub(crate) fn counted<'a>(judgments: &[&'a PairJudgment], mode: Mode) -> Vec<&'a PairJudgment> {
    let mut seen = BTreeSet::new();
    let mut counted: Vec<&PairJudgment> = judgments
        .iter()
        .rev()
        .filter(|judgment| mode == Mode::FastChat || seen.insert(judgment.key()))
        .copied()
        .collect();
    counted.reverse();
    counted
}

/// Returns the models in `judgments`, by name.
pub fn compared_models(judgments: &[PairJudgment]) -> Vec<&str> {
    let models = judgments.iter().flat_map(|row| [row.model_1.as_str(), &row.model_2]);
    models.collect::<BTreeSet<_>>().into_iter().collect()
}
