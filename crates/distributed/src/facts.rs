//! What must be equal on all ranks, and its comparison.

use std::path::PathBuf;

use crate::digest::{digest_of_model, hash_sequences, short};
use crate::error::DistributedError;
use crate::group::ProcessGroup;

/// An input or a state that must be equal on all ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Its name, as in "another … than rank 0".
    pub what: &'static str,
    /// Its value: a digest, or lines of text of which the first difference is reported.
    pub value: String,
    /// What to do about a difference.
    pub remedy: &'static str,
}

impl Fact {
    /// The configuration and weights of the model in `folders`; see [`digest_of_model`].
    ///
    /// # Errors
    ///
    /// [`DistributedError::Read`].
    pub fn of_model(folders: &[PathBuf], remedy: &'static str) -> Result<Self, DistributedError> {
        Ok(Self { what: "model", value: digest_of_model(folders)?, remedy })
    }

    /// The token ids of `sequences`, in their order.
    pub fn of_sequences<'a>(
        what: &'static str,
        sequences: impl IntoIterator<Item = &'a [u32]>,
        remedy: &'static str,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        hash_sequences(sequences, &mut hasher);
        Self { what, value: short(&hasher), remedy }
    }

    /// How the value `here` differs from rank 0's value `there`.
    fn difference(here: &str, there: &str) -> String {
        let lines = here.lines().zip(there.lines()).find(|(here, there)| here != there);
        match lines {
            Some((here, there)) => format!("here `{here}`, there `{there}`"),
            None => "one has more lines than the other".to_owned(),
        }
    }
}

impl ProcessGroup {
    /// Compares facts with those of rank 0; all ranks fail if they differ on one. A single process does not compute them.
    ///
    /// # Errors
    ///
    /// [`DistributedError::RanksDiffer`] on the rank that differs; the error of `facts`.
    pub fn check_agreement<E: From<DistributedError>>(
        &self,
        facts: impl FnOnce() -> Result<Vec<Fact>, E>,
    ) -> Result<(), E> {
        if !self.is_distributed() {
            return Ok(());
        }
        let facts = facts()?;
        let values = from_bytes(&self.broadcast_from_rank0(to_bytes(&facts))?);
        let different = facts.iter().zip(&values).find(|(fact, value)| fact.value != **value);
        if let Some((fact, value)) = different {
            return Err(E::from(DistributedError::RanksDiffer {
                rank: self.rank().index(),
                what: fact.what,
                difference: Fact::difference(&fact.value, value),
                remedy: fact.remedy,
            }));
        }
        Ok(self.barrier()?)
    }
}

/// Serializes the values of facts, each preceded by its length.
fn to_bytes(facts: &[Fact]) -> Vec<u8> {
    let values = facts.iter().map(|fact| fact.value.as_bytes());
    values
        .flat_map(|value| (value.len() as u64).to_le_bytes().into_iter().chain(value.iter().copied()))
        .collect()
}

/// Parses the values that [`to_bytes`] wrote.
fn from_bytes(mut bytes: &[u8]) -> Vec<String> {
    let mut values = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let length = (u64::from_le_bytes(*length) as usize).min(rest.len());
        let (value, rest) = rest.split_at(length);
        values.push(String::from_utf8_lossy(value).into_owned());
        bytes = rest;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip_and_the_first_difference_is_reported() {
        let fact = |value: &str| Fact { what: "recipe", value: value.to_owned(), remedy: "" };
        let facts = [fact("seed = 0\nβ = 1\n"), fact(""), fact("x")];
        assert_eq!(from_bytes(&to_bytes(&facts)), ["seed = 0\nβ = 1\n", "", "x"]);
        assert_eq!(Fact::difference("a\nb", "a\nc"), "here `b`, there `c`");
        assert!(Fact::difference("a\nb", "a").contains("more lines"));
    }
}
