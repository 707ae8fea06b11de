//! Prices of models.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::chat::Usage;
use crate::error::Error;

/// Prices of models.
///
/// ```
/// use llm_client::{Prices, Usage};
///
/// let prices = Prices::listed();
/// let price = prices.of("gpt-4-0613").unwrap();
/// assert_eq!(price.cost(Usage { prompt_tokens: 1_000, completion_tokens: 500 }), 0.06);
/// assert!(prices.of("my-own-model").is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prices {
    models: BTreeMap<String, Price>,
}

/// The price of one model, in USD a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Of the prompt.
    pub prompt: f64,
    /// Of the answer.
    pub completion: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceFile {
    models: BTreeMap<String, Price>,
}

const LISTED: &str = include_str!("../data/prices.toml");

impl Prices {
    /// Returns the built-in list prices; `data/prices.toml` has their date.
    pub fn listed() -> Self {
        Self::parse(Path::new("prices.toml"), LISTED).expect("a test reads the embedded file")
    }

    /// Adds the prices of a file in the format of `data/prices.toml`, which take precedence.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Line`].
    pub fn and_file(mut self, path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        self.models.extend(Self::parse(path, &text)?.models);
        Ok(self)
    }

    /// Returns the price of `model`, under its name or under its name without the date at the end.
    pub fn of(&self, model: &str) -> Option<Price> {
        let dated = |name: &str| {
            let date = model.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
            date.is_some_and(|date| {
                !date.is_empty() && date.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit())
            })
        };
        let exact = self.models.get(model);
        exact.or_else(|| self.models.iter().find(|(name, _)| dated(name)).map(|(_, price)| price)).copied()
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let bad = |line: usize, problem: String| Error::Line { path: path.to_owned(), line, problem };
        let file: PriceFile = toml::from_str(text).map_err(|error| {
            let before = error.span().map_or(0, |span| span.start);
            bad(text[..before].lines().count().max(1), error.message().to_owned())
        })?;
        for (name, price) in &file.models {
            if ![price.prompt, price.completion].iter().all(|usd| usd.is_finite() && *usd >= 0.0) {
                let line = text.lines().position(|line| line.contains(name)).unwrap_or(0) + 1;
                return Err(bad(line, format!("the price of {name} is not a number from 0")));
            }
        }
        Ok(Self { models: file.models })
    }
}

const MILLION: f64 = 1e6;

impl Price {
    /// Computes the cost of a call, in USD.
    #[expect(clippy::cast_precision_loss, reason = "no call has 2^53 tokens")]
    pub fn cost(&self, usage: Usage) -> f64 {
        let (prompt, completion) = (usage.prompt_tokens as f64, usage.completion_tokens as f64);
        (prompt * self.prompt + completion * self.completion) / MILLION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_no_other_model() {
        let prices = Prices::listed();
        let prompt = |model: &str| prices.of(model).map(|price| price.prompt);
        assert_eq!(prompt("gpt-4o-2024-08-06"), Some(2.5));
        assert_eq!(prompt("gpt-4o-mini-2024-07-18"), Some(0.15));
        assert_eq!(prompt("gpt-4-32k-0613"), Some(60.0));
        for unknown in ["gpt-4-vision", "gpt-4-", "gpt", "gpt-4x", ""] {
            assert_eq!(prompt(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_file_takes_precedence_and_its_mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            Prices::listed().and_file(&path)
        };
        let prices = read("[models]\n\"gpt-4\" = { prompt = 1, completion = 2.0 }\n").unwrap();
        assert_eq!(prices.of("gpt-4"), Some(Price { prompt: 1.0, completion: 2.0 }));
        assert!(prices.of("gpt-4o").is_some());
        for (text, line) in [
            ("[models]\nx = { prompt = 1 }\n", 2),
            ("[models]\nx = { prompt = -1, completion = 0 }\n", 2),
            ("[prices]\n", 1),
            ("[models]\n\nx = { prompt = 1, completion = 1, cached = 2 }\n", 3),
        ] {
            let error = read(text).unwrap_err();
            assert!(matches!(&error, Error::Line { line: at, .. } if *at == line), "{text:?}: {error}");
        }
    }
}
