//! The vocabulary of the tasks, and the facts that a policy has to learn.
//!
//! Words are short and few, so that a vocabulary of 512 spells nearly all of them with one token. Comparisons ignore
//! case, therefore no two entries of one table differ by case alone.

/// People, used by every family that addresses or mentions somebody.
pub(crate) const NAMES: [&str; 24] = [
    "Ann", "Ben", "Dan", "Eva", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo", "Mia", "Ned", "Pam", "Ray", "Sam",
    "Tom", "Uma", "Vic", "Zoe", "Max", "Lou", "Jan", "Ian", "Amy",
];

/// A topic and the word that describes it vividly.
pub(crate) const TOPICS: [(&str, &str); 20] = [
    ("sea", "deep"),
    ("sun", "hot"),
    ("moon", "pale"),
    ("rain", "wet"),
    ("wind", "wild"),
    ("snow", "cold"),
    ("fire", "red"),
    ("night", "dark"),
    ("road", "long"),
    ("hill", "steep"),
    ("wood", "green"),
    ("lake", "calm"),
    ("rose", "sweet"),
    ("bird", "free"),
    ("star", "far"),
    ("sand", "dry"),
    ("storm", "loud"),
    ("field", "wide"),
    ("cave", "dim"),
    ("town", "old"),
];

/// The distractor of a description.
pub(crate) const BLAND: &str = "nice";

/// Words that a piece of writing has to use.
pub(crate) const REQUIRED: [&str; 20] = [
    "salt", "ice", "glass", "dust", "song", "hope", "silk", "smoke", "milk", "bread", "honey", "light",
    "shade", "stone", "steel", "moss", "leaf", "bell", "drum", "wine",
];

/// A persona, its greeting, its place.
pub(crate) const PERSONAS: [(&str, &str, &str); 12] = [
    ("pirate", "ahoy", "ship"),
    ("king", "hail", "hall"),
    ("monk", "peace", "abbey"),
    ("cowboy", "howdy", "ranch"),
    ("robot", "beep", "lab"),
    ("witch", "hex", "hut"),
    ("knight", "honor", "fort"),
    ("ghost", "boo", "crypt"),
    ("clown", "haha", "circus"),
    ("farmer", "morning", "barn"),
    ("diver", "splash", "reef"),
    ("baker", "yum", "oven"),
];

/// The distractor of a greeting and of a place.
pub(crate) const OUT_OF_CHARACTER: (&str, &str) = ("hello", "room");

/// Things that are counted.
pub(crate) const THINGS: [&str; 8] = ["hats", "cups", "pens", "keys", "nuts", "eggs", "figs", "pots"];

/// An operation's word and its operator.
pub(crate) const OPERATIONS: [(&str, &str); 8] = [
    ("plus", "+"),
    ("minus", "-"),
    ("times", "*"),
    ("by", "/"),
    ("mod", "%"),
    ("and", "&"),
    ("or", "|"),
    ("xor", "^"),
];

/// Names of a function's parameters.
pub(crate) const PARAMETERS: [&str; 8] = ["a", "b", "c", "m", "n", "x", "y", "z"];

/// Names of functions.
pub(crate) const FUNCTIONS: [&str; 8] = ["f", "g", "h", "p", "q", "r", "s", "t"];

/// Towns of a note.
pub(crate) const TOWNS: [&str; 10] =
    ["Rome", "Oslo", "Bern", "Cork", "Lima", "Kyiv", "Pisa", "Bonn", "Riga", "York"];

/// Pets of a note.
pub(crate) const PETS: [&str; 8] = ["cat", "dog", "hen", "pig", "cow", "owl", "fox", "ram"];

/// An element, its symbol and its kind.
pub(crate) const ELEMENTS: [(&str, &str, &str); 14] = [
    ("gold", "Au", "metal"),
    ("iron", "Fe", "metal"),
    ("zinc", "Zn", "metal"),
    ("lead", "Pb", "metal"),
    ("tin", "Sn", "metal"),
    ("silver", "Ag", "metal"),
    ("neon", "Ne", "gas"),
    ("argon", "Ar", "gas"),
    ("xenon", "Xe", "gas"),
    ("helium", "He", "gas"),
    ("boron", "B", "solid"),
    ("sulfur", "S", "solid"),
    ("carbon", "C", "solid"),
    ("iodine", "I", "solid"),
];

/// A book, its author and the author's country.
pub(crate) const BOOKS: [(&str, &str, &str); 12] = [
    ("Emma", "Austen", "England"),
    ("Faust", "Goethe", "Germany"),
    ("Iliad", "Homer", "Greece"),
    ("Inferno", "Dante", "Italy"),
    ("Ulysses", "Joyce", "Ireland"),
    ("Nana", "Zola", "France"),
    ("Hunger", "Hamsun", "Norway"),
    ("Dune", "Herbert", "America"),
    ("Dracula", "Stoker", "Ireland"),
    ("Candide", "Voltaire", "France"),
    ("Utopia", "More", "England"),
    ("Odyssey", "Homer", "Greece"),
];
