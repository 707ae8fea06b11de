//! Error messages: the text of an error does not repeat its cause, which the program prints after it.

use std::error::Error as StdError;
use std::io;

use mtbench::{Error, UnreadableRating};

const CAUSE: &str = "the innermost cause";

fn samples() -> Vec<Error> {
    let (path, io) = ("x".into(), || io::Error::other(CAUSE));
    let json = serde_json::from_str::<u8>("{").unwrap_err();
    let call = llm_client::Error::Setup { source: CAUSE.into() };
    vec![
        Error::Read { path, source: io() },
        Error::Write { path: "x".into(), source: io() },
        Error::Unwritable { path: "x".into(), row: 1, source: json },
        Error::Respond { model: "m".to_owned(), turn: 1, source: CAUSE.into() },
        Error::Fetch { url: "http://x".to_owned(), source: call },
        Error::Statistics { what: "x".to_owned(), source: stats::Error::Level { level: 2.0 } },
        Error::Rating {
            model: "m".to_owned(),
            question_id: 1,
            turn: 1,
            source: UnreadableRating("08".to_owned()),
        },
    ]
}

#[test]
fn no_text_repeats_its_cause() {
    for error in samples() {
        let text = error.to_string();
        let mut cause = error.source();
        assert!(cause.is_some(), "{text}");
        while let Some(inner) = cause {
            assert!(!text.contains(&inner.to_string()), "{text}: {inner}");
            cause = inner.source();
        }
    }
}
