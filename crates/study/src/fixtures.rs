//! Simulated results for tests.

use experiment::{BENCHMARK, Cell, Collected, Evaluated, Evaluation, Key, Score, Scorers, Setup, Subject};
use rand::RngExt;
use seeds::Seeds;
use trainer::recipe::LossKind;

use crate::contrast::Select;

/// Returns a policy's scores of 40 questions of four categories: `mean`, the question's difficulty, and noise.
fn evaluated(setup: &Setup, subject: Subject, mean: f64) -> Evaluated {
    let judge = Scorers::of(setup).judge.name;
    let mut rng = Seeds::new(subject.seed()).stream(&subject.to_string());
    let scores = (0..40).map(|question_id| Score {
        question_set: BENCHMARK.to_owned(),
        question_id,
        category: format!("category {}", question_id % 4),
        sample: 0,
        turn: 1,
        scorer: judge.clone(),
        score: Some(mean + (question_id % 5) as f64 / 2.0 + rng.random_range(-0.5..0.5)),
        judge_variance: None,
        characters: 10,
    });
    Evaluated {
        key: Key::of("run", &subject.to_string()),
        evaluation: Evaluation::from_scores(scores.collect()),
        subject,
        step: 1,
        training_loss: None,
        held_out: None,
        labels: None,
    }
}

/// Returns checkpoints of a DPO run with these means, for each of `seeds`.
pub(crate) fn checkpoints(setup: &Setup, seeds: u64, means: &[f64]) -> Collected {
    let subject = |seed, checkpoint| Subject::Trained {
        cell: Cell::new("human", LossKind::Dpo, setup.loss.beta, seed),
        checkpoint,
    };
    let of_seed = |seed| means.iter().enumerate().map(move |(at, &mean)| (subject(seed, at), mean));
    subjects(setup, (0..seeds).flat_map(of_seed))
}

/// Returns subjects with these means.
pub(crate) fn subjects(setup: &Setup, subjects: impl IntoIterator<Item = (Subject, f64)>) -> Collected {
    let evaluated = subjects.into_iter().map(|(subject, mean)| evaluated(setup, subject, mean));
    Collected { evaluated: evaluated.collect(), failed: Vec::new() }
}

/// Selects the checkpoint with this index.
pub(crate) fn at<'a>(wanted: usize) -> Select<'a> {
    Box::new(move |subject| matches!(subject, Subject::Trained { checkpoint, .. } if *checkpoint == wanted))
}
