//! Who wins how often.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{Games, Mode, PairJudgment, Winner};

/// Wins, losses and ties of one model, as FastChat counts them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PairScore {
    /// The model.
    pub model: String,
    /// Comparisons that it won in both games.
    pub win: u64,
    /// Comparisons that it lost in both games.
    pub loss: u64,
    /// All others.
    pub tie: u64,
}

/// The comparisons of a judge, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairScores {
    /// A row a model, the best adjusted win rate first, then by name.
    pub rows: Vec<PairScore>,
    /// Comparisons that count for nobody, since a game has no verdict.
    pub dropped: usize,
}

impl PairScore {
    /// Wins over all comparisons.
    pub fn win_rate(&self) -> Option<f64> {
        self.share(self.win as f64)
    }

    /// Losses over all comparisons.
    pub fn loss_rate(&self) -> Option<f64> {
        self.share(self.loss as f64)
    }

    /// Wins over all comparisons, a tie counted as half a win.
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
    /// In [`Mode::FastChat`] repeated comparisons count repeatedly; in [`Mode::Strict`] the last one counts. Either way the
    /// recorded winners are taken; [`PairJudgment::reread`] takes the texts' instead.
    pub fn new(judgments: &[PairJudgment], games: Games<'_>, mode: Mode) -> Self {
        let mut counts: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
        let mut dropped = 0;
        for judgment in counted(judgments, mode) {
            let models = [judgment.model_1.as_str(), &judgment.model_2];
            if let Games::Baseline(baseline) = games
                && !models.contains(&baseline)
            {
                continue;
            }
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
        Self { rows, dropped }
    }
}

/// The judgments that count in `mode`.
pub(crate) fn counted(judgments: &[PairJudgment], mode: Mode) -> Vec<&PairJudgment> {
    let mut seen = BTreeSet::new();
    let mut counted: Vec<&PairJudgment> = judgments
        .iter()
        .rev()
        .filter(|judgment| mode == Mode::FastChat || seen.insert(judgment.key()))
        .collect();
    counted.reverse();
    counted
}
