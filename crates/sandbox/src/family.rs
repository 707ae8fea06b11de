//! The eight task families: their templates, and the parser of each.

use pref_data::Message;
use rand::RngExt;
use rand::seq::IndexedRandom;
use seeds::Stream;

use crate::task::Task;
use crate::template::{self, fill};
use crate::words;

/// The categories of the benchmark, in its order: ten questions each.
pub const CATEGORIES: [&str; 8] =
    ["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"];

/// The values of a question's gaps.
pub(crate) type Gaps = Vec<(&'static str, String)>;

/// One task family: two sentence templates, a way to fill them, and the task that the filled sentences pose.
pub(crate) struct Family {
    /// Template of the first user turn.
    pub(crate) first: &'static str,
    /// Template of the second user turn.
    pub(crate) second: &'static str,
    /// Draws the values of the gaps of both turns.
    draw: fn(&mut Stream) -> (Gaps, Gaps),
    /// The task that the gaps define; `None` for a word outside of this world.
    pose: fn(&Posed<'_>) -> Option<Task>,
}

/// The gaps of a conversation; those of the second turn shadow the first turn's.
struct Posed<'a> {
    turn: usize,
    first: template::Values<'a>,
    second: template::Values<'a>,
}

impl<'a> Posed<'a> {
    fn get(&self, gap: &str) -> Option<&'a str> {
        template::value(&self.second, gap).or_else(|| template::value(&self.first, gap))
    }
}

/// The families, in the order of [`CATEGORIES`].
pub(crate) const FAMILIES: [Family; 8] = [
    Family {
        first: "Describe the {topic} with {word}.",
        second: "Again, now with {word}.",
        draw: draw_writing,
        pose: pose_writing,
    },
    Family {
        first: "You are a {persona}. Greet {name}.",
        second: "Now you are a {persona}.",
        draw: draw_roleplay,
        pose: pose_roleplay,
    },
    Family {
        first: "Rank {a} over {b} over {c}. Who is {end}?",
        second: "Who is {end}?",
        draw: draw_reasoning,
        pose: pose_reasoning,
    },
    Family {
        first: "Count {a} {thing} and {b} {other}.",
        second: "Now {a} {thing} and {b} {other}.",
        draw: draw_math,
        pose: pose_math,
    },
    Family {
        first: "Code {x} {operation} {y} as {name}.",
        second: "Now {operation} as {name}.",
        draw: draw_coding,
        pose: pose_coding,
    },
    Family {
        first: "Note: {name}, {town}, {pet}, {age}. The {field}?",
        second: "And the {field}?",
        draw: draw_extraction,
        pose: pose_extraction,
    },
    Family {
        first: "Explain the {element} of {name}.",
        second: "And the {element}?",
        draw: draw_stem,
        pose: pose_stem,
    },
    Family {
        first: "Tell {name} who wrote {book}.",
        second: "And the land of {book}?",
        draw: draw_humanities,
        pose: pose_humanities,
    },
];

impl Family {
    /// Returns the user messages of both turns.
    pub(crate) fn ask(&self, rng: &mut Stream) -> [String; 2] {
        let (first, second) = (self.draw)(rng);
        [fill(self.first, &first), fill(self.second, &second)]
    }

    fn read(&self, first: &str, second: Option<&str>) -> Option<Task> {
        let first = template::read(self.first, first)?;
        let (turn, second) = match second {
            Some(text) => (2, template::read(self.second, text)?),
            None => (1, Vec::new()),
        };
        (self.pose)(&Posed { turn, first, second })
    }
}

/// Returns the task of a conversation and the index of its family in [`CATEGORIES`].
///
/// Only the one or two user turns count. Returns `None` for a prompt outside of this world.
pub(crate) fn recognise(prompt: &[Message]) -> Option<(usize, Task)> {
    let mut user = prompt.iter().filter(|message| message.role() == "user");
    let (first, second) = (user.next()?.content(), user.next());
    if user.next().is_some() || prompt.last()?.role() != "user" {
        return None;
    }
    let second = second.map(Message::content);
    let (first, second) = (first.trim(), second.as_deref().map(str::trim));
    FAMILIES.iter().enumerate().find_map(|(index, family)| Some((index, family.read(first, second)?)))
}

fn pick<const N: usize>(from: &'static [&'static str; N], rng: &mut Stream) -> String {
    from.choose(rng).map_or_else(String::new, |word| (*word).to_owned())
}

fn row<T: Copy, const N: usize>(from: &'static [T; N], rng: &mut Stream) -> T {
    from[rng.random_range(0..N)]
}

fn digit(rng: &mut Stream) -> String {
    rng.random_range(1..=9).to_string()
}

/// Returns the row for which `is` is true and the next one with another `value`: the right answer and the distractor.
fn with_distractor<T: Copy>(
    rows: &'static [T],
    is: impl Fn(&T) -> bool,
    value: impl Fn(&T) -> &'static str,
) -> Option<(T, &'static str)> {
    let at = rows.iter().position(is)?;
    let right = rows[at];
    let other = rows[at + 1..].iter().chain(&rows[..at]).find(|row| value(row) != value(&right))?;
    Some((right, value(other)))
}

fn draw_writing(rng: &mut Stream) -> (Gaps, Gaps) {
    let first = vec![("topic", row(&words::TOPICS, rng).0.to_owned()), ("word", pick(&words::REQUIRED, rng))];
    (first, vec![("word", pick(&words::REQUIRED, rng))])
}

fn pose_writing(posed: &Posed<'_>) -> Option<Task> {
    let (topic, word) = (posed.get("topic")?, posed.get("word")?);
    let (topic, vivid) = words::TOPICS.iter().find(|(name, _)| *name == topic)?;
    let task = Task::new("The {topic} is {trait} and full of {word}", "The {topic} is {trait}")
        .right("topic", *topic)
        .right("trait", *vivid)
        .right("word", word);
    Some(task.wrong("trait", words::BLAND))
}

fn draw_roleplay(rng: &mut Stream) -> (Gaps, Gaps) {
    let first =
        vec![("persona", row(&words::PERSONAS, rng).0.to_owned()), ("name", pick(&words::NAMES, rng))];
    (first, vec![("persona", row(&words::PERSONAS, rng).0.to_owned())])
}

fn pose_roleplay(posed: &Posed<'_>) -> Option<Task> {
    let (persona, name) = (posed.get("persona")?, posed.get("name")?);
    let (_, hail, place) = words::PERSONAS.iter().find(|(who, _, _)| *who == persona)?;
    let task = Task::new("I say {hail}, {name}, from my {place}", "I say {hail} from my {place}")
        .right("hail", *hail)
        .right("place", *place)
        .right("name", name);
    let (hello, room) = words::OUT_OF_CHARACTER;
    Some(task.wrong("hail", hello).wrong("place", room))
}

fn draw_reasoning(rng: &mut Stream) -> (Gaps, Gaps) {
    let names: Vec<&str> = words::NAMES.sample(rng, 3).copied().collect();
    let (end, other) = if rng.random_bool(0.5) { ("top", "last") } else { ("last", "top") };
    let first = vec![
        ("a", names[0].to_owned()),
        ("b", names[1].to_owned()),
        ("c", names[2].to_owned()),
        ("end", end.to_owned()),
    ];
    (first, vec![("end", other.to_owned())])
}

fn pose_reasoning(posed: &Posed<'_>) -> Option<Task> {
    let [a, b, c] = [posed.get("a")?, posed.get("b")?, posed.get("c")?];
    let (who, above, below) = match posed.get("end")? {
        "top" => (a, a, b),
        "last" => (c, b, c),
        _ => return None,
    };
    let task = Task::new("It is {who}, as {above} is over {below}", "It is {who}")
        .right("who", who)
        .right("above", above)
        .right("below", below);
    Some(task.wrong("who", b))
}

fn draw_math(rng: &mut Stream) -> (Gaps, Gaps) {
    let mut turn = || {
        let things: Vec<&str> = words::THINGS.sample(rng, 2).copied().collect();
        vec![
            ("a", digit(rng)),
            ("b", digit(rng)),
            ("thing", things[0].to_owned()),
            ("other", things[1].to_owned()),
        ]
    };
    (turn(), turn())
}

fn pose_math(posed: &Posed<'_>) -> Option<Task> {
    let (a, b) = (posed.get("a")?, posed.get("b")?);
    let sum = a.parse::<u8>().ok()?.checked_add(b.parse().ok()?)?;
    let task = Task::new("There are {sum}, from {a} and {b}", "There are {sum}")
        .right("sum", sum.to_string())
        .right("a", a)
        .right("b", b);
    Some(task.wrong("sum", sum.checked_add(1)?.to_string()))
}

fn draw_coding(rng: &mut Stream) -> (Gaps, Gaps) {
    let parameters: Vec<&str> = words::PARAMETERS.sample(rng, 2).copied().collect();
    let names: Vec<&str> = words::FUNCTIONS.sample(rng, 2).copied().collect();
    let mut operation = || row(&words::OPERATIONS, rng).0.to_owned();
    let first = vec![
        ("x", parameters[0].to_owned()),
        ("operation", operation()),
        ("y", parameters[1].to_owned()),
        ("name", names[0].to_owned()),
    ];
    (first, vec![("operation", operation()), ("name", names[1].to_owned())])
}

fn pose_coding(posed: &Posed<'_>) -> Option<Task> {
    let word = posed.get("operation")?;
    let ((_, operator), other) = with_distractor(&words::OPERATIONS, |row| row.0 == word, |row| row.1)?;
    let full = "def {name}({x}, {y}): return {x} {operator} {y}";
    let task = Task::new(full, "def foo({x}, {y}): return {x} {operator} {y}")
        .right("name", posed.get("name")?)
        .right("x", posed.get("x")?)
        .right("y", posed.get("y")?)
        .right("operator", operator);
    Some(task.wrong("operator", other))
}

const FIELDS: [&str; 3] = ["town", "pet", "age"];

fn draw_extraction(rng: &mut Stream) -> (Gaps, Gaps) {
    let fields: Vec<&str> = FIELDS.sample(rng, 2).copied().collect();
    let first = vec![
        ("name", pick(&words::NAMES, rng)),
        ("town", pick(&words::TOWNS, rng)),
        ("pet", pick(&words::PETS, rng)),
        ("age", digit(rng)),
        ("field", fields[0].to_owned()),
    ];
    (first, vec![("field", fields[1].to_owned())])
}

fn pose_extraction(posed: &Posed<'_>) -> Option<Task> {
    let at = FIELDS.iter().position(|field| Some(*field) == posed.get("field"))?;
    let task = Task::new("The {field} of {name} is {value}", "The {field} is {value}")
        .right("field", FIELDS[at])
        .right("name", posed.get("name")?)
        .right("value", posed.get(FIELDS[at])?);
    Some(task.wrong("value", posed.get(FIELDS[(at + 1) % FIELDS.len()])?))
}

fn draw_stem(rng: &mut Stream) -> (Gaps, Gaps) {
    let mut element = || row(&words::ELEMENTS, rng).0.to_owned();
    let (first, second) = (element(), element());
    (vec![("element", first), ("name", pick(&words::NAMES, rng))], vec![("element", second)])
}

fn pose_stem(posed: &Posed<'_>) -> Option<Task> {
    let element = posed.get("element")?;
    let ((_, symbol, kind), other) = with_distractor(&words::ELEMENTS, |row| row.0 == element, |row| row.1)?;
    let task =
        Task::new("It is {symbol}, a {kind}", "It is {symbol}").right("symbol", symbol).right("kind", kind);
    Some(task.wrong("symbol", other))
}

fn draw_humanities(rng: &mut Stream) -> (Gaps, Gaps) {
    let mut book = || row(&words::BOOKS, rng).0.to_owned();
    let (first, second) = (book(), book());
    (vec![("name", pick(&words::NAMES, rng)), ("book", first)], vec![("book", second)])
}

fn pose_humanities(posed: &Posed<'_>) -> Option<Task> {
    let book = posed.get("book")?;
    let is = |row: &(&str, &str, &str)| row.0 == book;
    let (full, bare, value) = if posed.turn == 1 {
        ("Dear {name}, it is by {what}", "It is by {what}", author as fn(&_) -> _)
    } else {
        ("Dear {name}, it is from {what}", "It is from {what}", land as fn(&_) -> _)
    };
    let (right, other) = with_distractor(&words::BOOKS, is, value)?;
    let task = Task::new(full, bare).right("name", posed.get("name")?).right("what", value(&right));
    Some(task.wrong("what", other))
}

fn author(row: &(&'static str, &'static str, &'static str)) -> &'static str {
    row.1
}

fn land(row: &(&'static str, &'static str, &'static str)) -> &'static str {
    row.2
}
