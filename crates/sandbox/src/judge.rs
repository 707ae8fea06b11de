//! Judges that compute a rating and write it in the format of an LLM judge.

use std::cmp::Ordering;
use std::error::Error;

use mtbench::{Draw, Judge, JudgeRequest, Rival};
use pref_data::Message;
use rand::RngExt;
use seeds::{Seeds, Stream};

use crate::annotator::{GPT_4_TURBO, Taste};
use crate::gold::{Assessment, Attempt, HIGHEST, LOWEST, assess};

/// A judge whose rating is gold quality with noise and an optional bias, rounded to a whole number in 1..=10.
///
/// Real judges nearly always give whole numbers; rounding adds noise (0.29 points) and no bias. The noise is a
/// deterministic function of question, turn, answers and [`Draw`], and does not depend on the model's name. Of two
/// answers the judge prefers the one with the higher rating, in either order.
#[derive(Clone, Debug)]
pub struct SandboxJudge {
    name: &'static str,
    taste: Taste,
    seeds: Seeds,
}

/// Standard deviation of a judge's noise, in points.
const NOISE: f64 = 0.5;

impl SandboxJudge {
    /// The unbiased judge `sandbox-judge`: quality and noise.
    pub fn unbiased(seeds: &Seeds) -> Self {
        let taste = Taste { padding: 0.0, courtesy: 0.0, ..GPT_4_TURBO };
        Self::new("sandbox-judge", taste, seeds)
    }

    /// The biased judge `sandbox-judge-gpt-4-taste`: it has the biases of the annotator `gpt-4-turbo` towards padding
    /// and courtesy.
    pub fn sharing_taste(seeds: &Seeds) -> Self {
        Self::new("sandbox-judge-gpt-4-taste", GPT_4_TURBO, seeds)
    }

    fn new(name: &'static str, taste: Taste, seeds: &Seeds) -> Self {
        Self { name, taste, seeds: seeds.child("sandbox").child("judge").child(name) }
    }

    /// The rating that the judge's text ends with: a whole number from 1 to 10.
    pub fn rating(&self, request: &JudgeRequest<'_>) -> u8 {
        self.rate(request, &assess_request(request))
    }

    fn rate(&self, request: &JudgeRequest<'_>, assessment: &Assessment) -> u8 {
        let noise = NOISE * normal(&mut self.stream(request));
        let rating = (self.taste.utility(assessment) + noise).round().clamp(LOWEST, HIGHEST);
        // In 1..=10 by the clamp.
        rating as u8
    }

    fn stream(&self, request: &JudgeRequest<'_>) -> Stream {
        let mut name = format!("{}\u{1e}{}", request.question.question_id, request.turn);
        for answer in request.answers {
            name.push('\u{1e}');
            name.push_str(answer);
        }
        if request.draw != Draw::default() {
            name.push_str(&format!("\u{1d}{}\u{1e}{}", request.draw.repeat, request.draw.again));
        }
        self.seeds.stream(&name)
    }
}

impl Judge for SandboxJudge {
    fn name(&self) -> &str {
        self.name
    }

    fn judge(&self, request: &JudgeRequest<'_>) -> Result<String, Box<dyn Error + Send + Sync>> {
        let assessment = assess_request(request);
        let rating = self.rate(request, &assessment);
        if let Some(Rival { model, answers }) = request.rival {
            let other = JudgeRequest { model, answers, rival: None, ..request.clone() };
            let verdict = match rating.cmp(&self.rating(&other)) {
                Ordering::Greater => "Assistant A is better: [[A]]",
                Ordering::Less => "Assistant B is better: [[B]]",
                Ordering::Equal => "Neither is better: [[C]]",
            };
            return Ok(format!("{} {verdict}", explanation(&assessment)));
        }
        Ok(format!("{} Rating: [[{rating}]]", explanation(&assessment)))
    }
}

/// Returns the conversation up to the judged answer, and the answer's assessment.
fn assess_request(request: &JudgeRequest<'_>) -> Assessment {
    let turn = usize::from(request.turn.max(1));
    let mut prompt = Vec::with_capacity(2 * turn);
    for (index, question) in request.question.turns.iter().take(turn).enumerate() {
        prompt.push(Message::user(question));
        if index + 1 < turn {
            prompt.push(Message::assistant(request.answers.get(index).map_or("", String::as_str)));
        }
    }
    let answer = request.answers.get(turn - 1).map_or("", String::as_str);
    assess(&prompt, answer)
}

fn explanation(assessment: &Assessment) -> String {
    let content = match (assessment.attempt, assessment.core, assessment.constraint) {
        (Attempt::Neither, _, _) => "The response does not address the question.",
        (Attempt::Declined, _, _) => "The assistant declines to answer the question.",
        (Attempt::Answered, true, true) => "The response is correct and does all that was asked for.",
        (Attempt::Answered, true, false) => {
            "The response is correct but leaves out a part of what was asked for."
        }
        (Attempt::Answered, false, true) => "The response covers what was asked for, but it is not correct.",
        (Attempt::Answered, false, false) => {
            "The response is not correct and leaves out a part of the question."
        }
    };
    let form = match (assessment.filler, assessment.full_stop) {
        (false, true) => "It is well formed.",
        (true, true) => "It hesitates needlessly.",
        (false, false) => "It breaks off without a full stop.",
        (true, false) => "It hesitates and breaks off.",
    };
    let length = match assessment.surplus {
        0 => "It is concise.",
        1 => "It adds a further sentence.",
        _ => "It adds several further sentences.",
    };
    format!("{content} {form} {length}")
}

/// A standard normal draw, by Box and Muller.
pub fn normal(rng: &mut Stream) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    let angle = std::f64::consts::TAU * rng.random::<f64>();
    radius * angle.cos()
}
