//! Benchmark questions, further questions, training prompts and demonstrations.
//!
//! A hash of its text assigns every first turn to one of three regions, so the regions are disjoint for all seeds.

use std::collections::BTreeSet;

use mtbench::Question;
use pref_data::Message;
use seeds::{Seeds, Stream};

use crate::behavior::{Demonstrator, Mixture};
use crate::family::{self, CATEGORIES, FAMILIES};
use crate::task::{Constraint, Content};

/// Questions in a category of the benchmark.
const PER_CATEGORY: usize = 10;
/// MT-Bench's first question.
const FIRST_ID: u64 = 81;
/// The first of the further questions.
const FIRST_FURTHER_ID: u64 = 1001;
/// At low temperature a policy's samples show only the mode of a mixture.
const TEMPERATURE: f64 = 0.7;
/// Maximum draws for a new question before a repetition.
const TRIES: usize = 1_000;

/// A conversation that ends with a user turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingPrompt {
    /// Identifies the prompt within its set.
    pub id: String,
    /// The category: one of [`CATEGORIES`].
    pub category: &'static str,
    /// One user message, or two with an answer between them.
    pub messages: Vec<Message>,
}

/// The benchmark: 80 two-turn questions, ten a category in the order of [`CATEGORIES`], with MT-Bench's ids 81 to 160.
///
/// ```
/// use sandbox::{CATEGORIES, questions};
/// use seeds::Seeds;
///
/// let questions = questions(&Seeds::new(0));
/// assert_eq!(questions.len(), 80);
/// assert_eq!((questions[0].question_id, questions[79].question_id), (81, 160));
/// assert_eq!(questions[10].category, CATEGORIES[1]);
/// ```
pub fn questions(seeds: &Seeds) -> Vec<Question> {
    let mut rng = seeds.child("sandbox").stream("questions");
    let mut asked = BTreeSet::new();
    let category = |index: usize| index / PER_CATEGORY;
    (0..CATEGORIES.len() * PER_CATEGORY)
        .map(|index| {
            let turns = unasked(category(index), Region::Benchmark, &mut asked, &mut rng);
            question(FIRST_ID + index as u64, category(index), turns)
        })
        .collect()
}

/// Returns `n` further questions with ids from 1001, cycling through the categories: a sample of the population of
/// the 80 questions.
///
/// Their first turns differ from those of the benchmark for all seeds. They are distinct up to about 600 in the
/// smallest category.
pub fn further_questions(seeds: &Seeds, n: usize) -> Vec<Question> {
    let mut rng = seeds.child("sandbox").stream("further-questions");
    let mut asked = BTreeSet::new();
    (0..n)
        .map(|index| {
            let category = index % CATEGORIES.len();
            let turns = unasked(category, Region::Further, &mut asked, &mut rng);
            question(FIRST_FURTHER_ID + index as u64, category, turns)
        })
        .collect()
}

/// Returns `n` prompts, cycling through the categories; half of them have two turns.
///
/// The first answer of a two-turn prompt is an ordinary demonstration. No first turn is from a question.
pub fn training_prompts(seeds: &Seeds, n: usize) -> Vec<TrainingPrompt> {
    let mut rng = seeds.child("sandbox").stream("training-prompts");
    (0..n)
        .map(|index| {
            let category = index % CATEGORIES.len();
            let turns = draw(category, Region::Training, &mut rng);
            let second = index / CATEGORIES.len() % 2 == 1;
            TrainingPrompt {
                id: format!("sandbox-{index:06}"),
                category: CATEGORIES[category],
                messages: match second {
                    false => vec![Message::user(&turns[0])],
                    true => {
                        let mut dialogue = demonstrate(category, &turns, Mixture::Ordinary, &mut rng);
                        dialogue.truncate(3);
                        dialogue
                    }
                },
            }
        })
        .collect()
}

/// Returns `n` two-turn dialogues, cycling through the categories. A demonstrator's level is independent of the
/// prompt and the same for both answers.
///
/// No first turn is from a question.
pub fn demonstrations(seeds: &Seeds, n: usize, mixture: Mixture) -> Vec<Vec<Message>> {
    let stream = match mixture {
        Mixture::Ordinary => "demonstrations-ordinary",
        Mixture::Strong => "demonstrations-strong",
    };
    let mut rng = seeds.child("sandbox").stream(stream);
    (0..n)
        .map(|index| {
            let category = index % CATEGORIES.len();
            let turns = draw(category, Region::Training, &mut rng);
            demonstrate(category, &turns, mixture, &mut rng)
        })
        .collect()
}

/// Answers `prompt` as a random demonstrator of `mixture`.
///
/// Returns `None` for a prompt outside of this world.
pub fn demonstrate_answer(prompt: &[Message], mixture: Mixture, rng: &mut Stream) -> Option<String> {
    let (category, task) = family::recognise(prompt)?;
    Some(Demonstrator::draw(mixture, rng).answer(category, &task, rng))
}

/// The answer to `prompt` that is worth 10; Returns `None` for a prompt outside of this world.
///
/// ```
/// use pref_data::Message;
/// let prompt = [Message::user("Tell Ann who wrote Faust.")];
/// assert_eq!(sandbox::ideal_answer(&prompt).as_deref(), Some("Dear Ann, it is by Goethe."));
/// ```
pub fn ideal_answer(prompt: &[Message]) -> Option<String> {
    let (_, task) = family::recognise(prompt)?;
    Some(format!("{}.", task.answer(Content::Right, Constraint::Met)))
}

/// Returns the ideal answers to a question's turns: the content of a judge's reference file.
///
/// Returns `None` for a prompt outside of this world.
pub fn reference_turns(question: &Question) -> Option<Vec<String>> {
    let mut dialogue = Vec::with_capacity(2 * question.turns.len());
    let mut answers = Vec::with_capacity(question.turns.len());
    for turn in &question.turns {
        dialogue.push(Message::user(turn));
        let answer = ideal_answer(&dialogue)?;
        dialogue.push(Message::assistant(&answer));
        answers.push(answer);
    }
    Some(answers)
}

/// The region of a first turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Region {
    Benchmark,
    Further,
    Training,
}

/// The region of a first turn: a sixteenth for the benchmark, three for further questions, the rest for training.
fn region(first_turn: &str) -> Region {
    // FNV-1a, folded: the low bits of the plain hash depend on little of the text.
    let hash = first_turn.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    match (hash ^ (hash >> 32)) % 16 {
        0 => Region::Benchmark,
        1..=3 => Region::Further,
        _ => Region::Training,
    }
}

fn draw(category: usize, wanted: Region, rng: &mut Stream) -> [String; 2] {
    loop {
        let turns = FAMILIES[category].ask(rng);
        if region(&turns[0]) == wanted {
            return turns;
        }
    }
}

fn unasked(
    category: usize,
    wanted: Region,
    asked: &mut BTreeSet<[String; 2]>,
    rng: &mut Stream,
) -> [String; 2] {
    let mut turns = draw(category, wanted, rng);
    for _ in 0..TRIES {
        if !asked.contains(&turns) {
            break;
        }
        turns = draw(category, wanted, rng);
    }
    asked.insert(turns.clone());
    turns
}

fn question(question_id: u64, category: usize, turns: [String; 2]) -> Question {
    Question {
        question_id,
        category: CATEGORIES[category].to_owned(),
        turns: turns.into(),
        reference: None,
        required_temperature: Some(TEMPERATURE),
    }
}

fn demonstrate(category: usize, turns: &[String; 2], mixture: Mixture, rng: &mut Stream) -> Vec<Message> {
    let demonstrator = Demonstrator::draw(mixture, rng);
    let mut dialogue = Vec::with_capacity(2 * turns.len());
    for turn in turns {
        dialogue.push(Message::user(turn));
        let answer = family::recognise(&dialogue)
            .map(|(_, task)| demonstrator.answer(category, &task, rng))
            .expect("a family parses its own templates: the families' tests read every template back");
        dialogue.push(Message::assistant(answer));
    }
    dialogue
}
