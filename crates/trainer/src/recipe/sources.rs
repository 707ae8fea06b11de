//! The sources of a recipe's data: one table `[data]`, or a list of tables `[[data]]`.

use pref_data::FlipRate;
use toml::{Table, Value};

use super::{Complaint, DataSection};

/// Keys that hold for all sources, and that those after the first inherit.
const OF_ALL: [&str; 9] = [
    "chat_template",
    "chat_template_kwargs",
    "date",
    "max_length",
    "max_prompt_length",
    "preset",
    "sanitize_control_tokens",
    "shuffle",
    "truncation",
];

/// Copies the keys that hold for all sources from the first to the others.
pub(super) fn inherit(recipe: &mut Table) -> Result<(), Complaint> {
    let Some(Value::Array(sources)) = recipe.get_mut("data") else { return Ok(()) };
    let Some((Value::Table(first), others)) = sources.split_first_mut() else { return Ok(()) };
    for (at, other) in others.iter_mut().enumerate() {
        let Value::Table(other) = other else { continue };
        for key in OF_ALL {
            match (first.get(key), other.get(key)) {
                (Some(value), None) => _ = other.insert(key.to_owned(), value.clone()),
                (there, Some(here)) if there != Some(here) => {
                    let reason = "holds for all sources; set it in the first [[data]] only";
                    return Err(of_source(Complaint::invalid(key, reason), at + 1));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Checks each source, and that the sizes of a mixture are determined.
pub(super) fn check(sources: &[DataSection]) -> Result<(), Complaint> {
    if sources.is_empty() {
        return Err(Complaint::invalid("data", "is an empty list; add a [[data]] with a path"));
    }
    let is_list = sources.len() > 1;
    let has_weights = sources.iter().any(|source| source.weight.is_some());
    for (at, source) in sources.iter().enumerate() {
        let of_this = |complaint: Complaint| {
            if is_list { of_source(complaint, at) } else { complaint.within("data") }
        };
        source.check().map_err(of_this)?;
        if !is_list && has_weights {
            let reason = "is for a list of sources; remove it, or add another [[data]]";
            return Err(of_this(Complaint::invalid("weight", reason)));
        }
        if has_weights && source.weight.is_none() {
            let reason = "is missing, and other sources have one; give each source a weight, or none";
            return Err(of_this(Complaint::invalid("weight", reason)));
        }
    }
    Ok(())
}

/// Returns the share of flipped labels if all sources have the same.
pub(super) fn flip_rate(sources: &[DataSection]) -> Option<FlipRate> {
    let first = sources.first()?.flip_rate;
    sources.iter().all(|source| source.flip_rate == first).then_some(first)
}

fn of_source(complaint: Complaint, at: usize) -> Complaint {
    complaint.within(&at.to_string()).within("data")
}

/// (De)serializes sources, for `#[serde(with = "one_or_list")]`: one is a table.
pub(super) mod one_or_list {
    use std::fmt;

    use serde::de::value::MapAccessDeserializer;
    use serde::de::{MapAccess, SeqAccess, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::DataSection;

    /// # Errors
    /// The errors of `serializer`.
    pub(in super::super) fn serialize<S: Serializer>(
        sources: &[DataSection],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match sources {
            [one] => one.serialize(serializer),
            list => list.serialize(serializer),
        }
    }

    /// # Errors
    /// The errors of `deserializer`, and an error if the value is neither a table nor a list of tables.
    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<DataSection>, D::Error> {
        deserializer.deserialize_any(Sources)
    }

    struct Sources;

    impl<'de> Visitor<'de> for Sources {
        type Value = Vec<DataSection>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table, or a list of tables")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Ok(vec![DataSection::deserialize(MapAccessDeserializer::new(map))?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut sources = Vec::new();
            while let Some(source) = list.next_element()? {
                sources.push(source);
            }
            Ok(sources)
        }
    }
}
