//! Anchors: answers that are judged again at each start, which show whether the judge changed.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;

use rand::seq::SliceRandom as _;
use seeds::{Seeds, Stream};
use serde::{Deserialize, Serialize};

use crate::bench_dir::BenchDir;
use crate::judge::{Draw, JudgeRequest, Served};
use crate::jury::Jury;
use crate::question_id;
use crate::rows::{if_present, read_lines, write_lines};
use crate::verdict::{PairVerdict, Reading, Verdict};

/// How often each anchor is judged at a start. Two opinions show the judge's own noise.
const OPINIONS: u32 = 2;

/// Draws of anchors are numbered from here, so that no other call shares their cached reply.
const FIRST_DRAW: u32 = 1_000_000;

/// Random relabelings of the permutation test.
const RELABELINGS: usize = 9_999;

/// An opinion on an anchor: a line of `anchors/JUDGE_single.jsonl` or `anchors/JUDGE_pair.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Opinion {
    /// The number of the start, from 1.
    start: u32,
    /// The number of the accepted change, from 0. Only opinions of one era are compared.
    era: u32,
    /// Whether the judge had changed at this start, and the change was not accepted.
    #[serde(default)]
    changed: bool,
    #[serde(flatten)]
    anchor: Anchor,
    /// The text of the judge.
    judgment: String,
    /// The rating, or the share of the game that assistant A won.
    value: f64,
    #[serde(flatten)]
    served: Served,
}

/// The identity of an anchor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Anchor {
    #[serde(with = "question_id")]
    question_id: u64,
    model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rival: Option<String>,
    turn: u8,
    /// The digest of the judge's prompts, which contain the answer.
    digest: String,
}

/// What a check of anchors finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// The number of the start, from 1.
    pub start: u32,
    /// Anchors with opinions of this start and of earlier ones.
    pub anchors: usize,
    /// The mean change of the anchors, in points or shares of games; 0 at the first start.
    pub change: f64,
    /// The probability of such a change, in any direction, by the judge's own noise; 1 at the first start.
    pub p_value: f64,
    /// What the server reported of itself at earlier starts, and what it reports now, if they differ.
    pub served: Option<(Vec<Served>, Vec<Served>)>,
}

impl Drift {
    /// The p-value below which the judge has changed.
    pub const LEVEL: f64 = 0.01;

    /// Whether the anchors changed beyond the judge's own noise.
    pub fn is_alarm(&self) -> bool {
        self.p_value < Self::LEVEL
    }
}

/// The anchors of a judge.
#[derive(Clone, Copy, Debug)]
pub struct Anchors<'a> {
    /// The benchmark's folder.
    pub bench: &'a BenchDir,
    /// All calls from which anchors are chosen; the file's anchors among them are judged again.
    pub requests: &'a [JudgeRequest<'a>],
    /// The number of anchors.
    pub count: usize,
    /// Whether a change is accepted: later starts are compared with this one.
    pub accept: bool,
}

impl Anchors<'_> {
    /// Judges the anchors twice and compares the opinions with those of earlier starts.
    ///
    /// The test permutes the opinions of each anchor between this start and earlier ones; its statistic is the sum of the
    /// anchors' squared changes. It assumes that a judge that does not change gives exchangeable opinions.
    ///
    /// # Errors
    ///
    /// Those of [`BenchDir`], and the judge's error if it ends all calls.
    pub fn check(&self, jury: &Jury<'_>) -> Result<Drift, Box<dyn StdError + Send + Sync>> {
        let Some(first) = self.requests.first() else {
            return Ok(Drift { start: 1, anchors: 0, change: 0.0, p_value: 1.0, served: None });
        };
        let path = self.bench.anchor_file(jury.judge.name(), first.rival.is_some())?;
        let mut rows: Vec<Opinion> = if_present(read_lines(&path))?;
        let start = rows.iter().map(|row| row.start).max().unwrap_or(0) + 1;
        let era = rows.iter().map(|row| row.era).max().unwrap_or(0);
        let chosen = self.choose(&rows);
        let now = opinions(jury, &chosen, start, era)?;
        let earlier = || rows.iter().filter(|row| row.era == era && !row.changed);
        let groups = groups(earlier(), &now);
        let mut rng = Seeds::new(u64::from(start)).stream("anchors");
        let mut drift = Drift {
            start,
            anchors: groups.len(),
            change: mean(&groups.iter().map(|(before, now)| mean(now) - mean(before)).collect::<Vec<_>>()),
            p_value: p_value(&groups, RELABELINGS, &mut rng),
            served: None,
        };
        let distinct = |rows: BTreeSet<Served>| rows.into_iter().collect::<Vec<_>>();
        let before = distinct(earlier().map(|row| row.served.clone()).collect());
        let reported = distinct(now.iter().map(|row| row.served.clone()).collect());
        if !before.is_empty() && before != reported {
            drift.served = Some((before, reported));
        }
        let is_alarm = drift.is_alarm();
        rows.extend(now.into_iter().map(|row| match (is_alarm, self.accept) {
            (true, true) => Opinion { era: era + 1, ..row },
            (changed, _) => Opinion { changed, ..row },
        }));
        write_lines(&path, &rows)?;
        Ok(drift)
    }

    /// The anchors on file that are still calls, and others by the digest of their prompt.
    fn choose(&self, rows: &[Opinion]) -> Vec<(Anchor, JudgeRequest<'_>)> {
        let known: BTreeSet<&Anchor> = rows.iter().map(|row| &row.anchor).collect();
        let mut all: Vec<(Anchor, JudgeRequest<'_>)> =
            self.requests.iter().map(|request| (anchor_of(request), request.clone())).collect();
        all.sort_by(|(one, _), (other, _)| {
            (!known.contains(one), &one.digest).cmp(&(!known.contains(other), &other.digest))
        });
        all.truncate(self.count);
        all
    }
}

fn anchor_of(request: &JudgeRequest<'_>) -> Anchor {
    let prompts = format!("{}\0{}", request.system_prompt, request.user_prompt);
    Anchor {
        question_id: request.question.question_id,
        model: request.model.to_owned(),
        rival: request.rival.map(|rival| rival.model.to_owned()),
        turn: request.turn,
        digest: blake3::hash(prompts.as_bytes()).to_hex().to_string(),
    }
}

/// The judge's opinions at this start. Failed calls, and texts without a verdict, are left out.
fn opinions(
    jury: &Jury<'_>,
    chosen: &[(Anchor, JudgeRequest<'_>)],
    start: u32,
    era: u32,
) -> Result<Vec<Opinion>, Box<dyn StdError + Send + Sync>> {
    let draws = chosen.iter().flat_map(|(anchor, request)| {
        (0..OPINIONS).map(move |opinion| {
            let draw = Draw { repeat: FIRST_DRAW + start * OPINIONS + opinion, again: 0 };
            (anchor, JudgeRequest { draw, ..request.clone() })
        })
    });
    let (anchors, requests): (Vec<&Anchor>, Vec<JudgeRequest<'_>>) = draws.unzip();
    let is_pair = requests.first().is_some_and(|request| request.rival.is_some());
    let read = |text: &str| -> Reading {
        if is_pair { Ok(Verdict::of_game(text, jury.mode)) } else { Verdict::of_single(text, jury.mode) }
    };
    let said = jury.make_calls(&requests, &read, &mut |_| {});
    if let Some(stopped) = said.stopped {
        return Err(stopped);
    }
    let opinions = anchors.into_iter().zip(said.said).filter_map(|(anchor, said)| {
        let said = said?;
        let value = value(said.verdict.ok()?)?;
        let (anchor, judgment, served) = (anchor.clone(), said.text, said.served);
        Some(Opinion { start, era, changed: false, anchor, judgment, value, served })
    });
    Ok(opinions.collect())
}

fn value(verdict: Verdict) -> Option<f64> {
    Some(match verdict {
        Verdict::Rating(rating) => rating.value(),
        Verdict::Preference(PairVerdict::A) => 1.0,
        Verdict::Preference(PairVerdict::Tie) => 0.5,
        Verdict::Preference(PairVerdict::B) => 0.0,
        Verdict::OffScale(_) | Verdict::NoVerdict | Verdict::Failed => return None,
    })
}

/// The earlier opinions and those of now, of each anchor with both.
fn groups<'a>(earlier: impl Iterator<Item = &'a Opinion>, now: &'a [Opinion]) -> Vec<(Vec<f64>, Vec<f64>)> {
    let mut by_anchor: BTreeMap<&Anchor, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for row in earlier {
        by_anchor.entry(&row.anchor).or_default().0.push(row.value);
    }
    for row in now {
        by_anchor.entry(&row.anchor).or_default().1.push(row.value);
    }
    by_anchor.into_values().filter(|(before, now)| !before.is_empty() && !now.is_empty()).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The share of relabelings with a statistic as large as the observed one, itself included.
fn p_value(groups: &[(Vec<f64>, Vec<f64>)], relabelings: usize, rng: &mut Stream) -> f64 {
    let statistic = |groups: &[(Vec<f64>, usize)]| -> f64 {
        groups
            .iter()
            .map(|(values, before)| (mean(&values[*before..]) - mean(&values[..*before])).powi(2))
            .sum()
    };
    let mut pooled: Vec<(Vec<f64>, usize)> =
        groups.iter().map(|(before, now)| ([&before[..], now].concat(), before.len())).collect();
    // Equal sums differ by rounding.
    let observed = statistic(&pooled) - 1e-9;
    let mut reached = 1_u32;
    for _ in 0..relabelings {
        pooled.iter_mut().for_each(|(values, _)| values.shuffle(rng));
        reached += u32::from(statistic(&pooled) >= observed);
    }
    f64::from(reached) / (relabelings + 1) as f64
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;

    use super::*;

    #[test]
    fn the_test_keeps_its_level_and_finds_changes() {
        let mut rng = Seeds::new(1).stream("anchors");
        let mut alarms = [0; 3];
        const RUNS: usize = 200;
        for _ in 0..RUNS {
            for (alarms, shift) in alarms.iter_mut().zip([0.0, 1.0, 2.0]) {
                // Eight anchors of their own levels, four earlier opinions and two of now, with whole ratings.
                let group = |rng: &mut Stream| {
                    let level: f64 = rng.random_range(3.0..7.0);
                    let mut rate = |level: f64| (level + rng.random_range(-0.8..0.8)).round();
                    ((0..4).map(|_| rate(level)).collect(), (0..2).map(|_| rate(level + shift)).collect())
                };
                let groups: Vec<_> = (0..8).map(|_| group(&mut rng)).collect();
                *alarms += usize::from(p_value(&groups, 199, &mut rng) < 0.05);
            }
        }
        assert!(alarms[0] <= 20, "the level is 5%: {alarms:?} of {RUNS}");
        assert!(alarms[1] > 150 && alarms[2] > 195, "{alarms:?} of {RUNS}");
    }

    #[test]
    fn equal_opinions_are_no_change() {
        let mut rng = Seeds::new(0).stream("anchors");
        assert_eq!(p_value(&[], 999, &mut rng), 1.0);
        assert_eq!(p_value(&[(vec![7.0, 7.0], vec![7.0, 7.0])], 999, &mut rng), 1.0);
        let moved: Vec<_> = (0..8).map(|_| (vec![7.0, 7.0], vec![8.0, 8.0])).collect();
        assert!(p_value(&moved, 9_999, &mut rng) < 0.001);
    }
}
