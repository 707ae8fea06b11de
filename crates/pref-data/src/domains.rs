//! The domains of GAIR by category of MT-Bench: Tables 6 and 7 of *The Paradox of Preference*, as printed and as counted.

mod printed;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use printed::{Scenario, TABLE_6, TABLE_7};

use crate::record::PreferenceRecord;

/// A category of MT-Bench, by the name that its question file uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Writing.
    Writing,
    /// Role play.
    Roleplay,
    /// Reasoning.
    Reasoning,
    /// Mathematics.
    Math,
    /// Coding; the paper says "Code".
    Coding,
    /// Extraction.
    Extraction,
    /// Science and engineering.
    Stem,
    /// Humanities.
    Humanities,
}

impl Category {
    /// All categories, in the order of the question file.
    pub const ALL: [Self; 8] = [
        Self::Writing,
        Self::Roleplay,
        Self::Reasoning,
        Self::Math,
        Self::Coding,
        Self::Extraction,
        Self::Stem,
        Self::Humanities,
    ];

    /// Returns the name in the question file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Writing => "writing",
            Self::Roleplay => "roleplay",
            Self::Reasoning => "reasoning",
            Self::Math => "math",
            Self::Coding => "coding",
            Self::Extraction => "extraction",
            Self::Stem => "stem",
            Self::Humanities => "humanities",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns the categories of a scenario of GAIR in Table 6; `None` for a scenario that the table does not name.
///
/// ```
/// use pref_data::{Category, categories_of};
///
/// assert_eq!(categories_of("math_reasoning"), Some(&[Category::Math, Category::Reasoning][..]));
/// assert_eq!(categories_of("default"), Some(&[][..]));
/// assert_eq!(categories_of("gardening"), None);
/// ```
pub fn categories_of(scenario: &str) -> Option<&'static [Category]> {
    TABLE_6.iter().find(|row| row.name == scenario).map(|row| row.categories)
}

/// Tables 6 and 7 as counted from records, with the paper's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainCounts {
    /// Table 6, by scenario.
    pub scenarios: BTreeMap<String, Count>,
    /// Table 7, by category. A record of two categories counts in both, as in the paper.
    pub categories: BTreeMap<Category, CategoryCount>,
    /// Records without a domain, or with one that Table 6 does not name.
    pub unmapped: usize,
}

/// A printed and a counted number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The paper's number; 0 where it has no such row.
    pub printed: usize,
    /// The number in the records.
    pub counted: usize,
}

/// A row of Table 7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CategoryCount {
    /// The number in Table 7.
    pub printed: usize,
    /// The sum of Table 6's numbers, which differs for two categories.
    pub from_table_6: usize,
    /// The number in the records.
    pub counted: usize,
}

impl DomainCounts {
    /// Counts the records' domains.
    ///
    /// ```
    /// use pref_data::{Category, DomainCounts};
    ///
    /// let counts = DomainCounts::of(&[]);
    /// let roleplay = counts.categories[&Category::Roleplay];
    /// assert_eq!((roleplay.printed, roleplay.from_table_6), (924, 709));
    /// ```
    pub fn of(records: &[PreferenceRecord]) -> Self {
        let mut scenarios = BTreeMap::new();
        let mut categories: BTreeMap<Category, CategoryCount> = BTreeMap::new();
        for row in &TABLE_6 {
            scenarios.insert(row.name.to_owned(), Count { printed: row.pairs, counted: 0 });
            for &category in row.categories {
                categories.entry(category).or_default().from_table_6 += row.pairs;
            }
        }
        for (category, printed) in TABLE_7 {
            categories.entry(category).or_default().printed = printed;
        }
        let mut unmapped = 0;
        for domain in records.iter().map(|record| record.domain.as_deref()) {
            let mapped = domain.and_then(categories_of);
            unmapped += usize::from(mapped.is_none());
            if let Some(domain) = domain {
                scenarios.entry(domain.to_owned()).or_default().counted += 1;
            }
            for category in mapped.unwrap_or_default() {
                categories.entry(*category).or_default().counted += 1;
            }
        }
        Self { scenarios, categories, unmapped }
    }

    /// Returns the scenarios whose count differs from Table 6.
    pub fn scenario_differences(&self) -> impl Iterator<Item = (&str, Count)> {
        let rows = self.scenarios.iter().map(|(name, count)| (name.as_str(), *count));
        rows.filter(|(_, count)| count.printed != count.counted)
    }

    /// Returns the categories whose count differs from Table 7.
    pub fn category_differences(&self) -> impl Iterator<Item = (Category, CategoryCount)> {
        let rows = self.categories.iter().map(|(category, count)| (*category, *count));
        rows.filter(|(_, count)| count.printed != count.counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Text;

    #[test]
    fn the_printed_tables_differ_in_two_categories() {
        assert_eq!(TABLE_6.iter().map(|row| row.pairs).sum::<usize>(), 5236);
        let counts = DomainCounts::of(&[]);
        let differ = counts.categories.iter().filter(|(_, count)| count.printed != count.from_table_6);
        let differ: Vec<_> = differ.map(|(c, count)| (*c, count.printed, count.from_table_6)).collect();
        assert_eq!(differ, [(Category::Roleplay, 924, 709), (Category::Coding, 401, 612)]);
        for (index, row) in TABLE_6.iter().enumerate() {
            assert!(TABLE_6[..index].iter().all(|earlier| earlier.name != row.name), "{} twice", row.name);
        }
    }

    #[test]
    fn records_are_counted_by_scenario_and_category() {
        let record = |id: usize, domain: Option<&str>| PreferenceRecord {
            id: id.to_string(),
            prompt: Text::Plain(String::new()),
            responses: vec![Text::Plain("a".to_owned()), Text::Plain("b".to_owned())],
            labels: BTreeMap::new(),
            domain: domain.map(str::to_owned),
            context: Default::default(),
        };
        let mut records = Vec::new();
        for row in &TABLE_6 {
            records.extend((0..row.pairs).map(|_| record(0, Some(row.name))));
        }
        let counts = DomainCounts::of(&records);
        assert_eq!(counts.scenario_differences().count(), 0);
        let differences: Vec<_> = counts.category_differences().map(|(category, _)| category).collect();
        assert_eq!(differences, [Category::Roleplay, Category::Coding]);
        let counts =
            DomainCounts::of(&[record(1, Some("math_reasoning")), record(2, Some("x")), record(3, None)]);
        assert_eq!(counts.categories[&Category::Math].counted, 1);
        assert_eq!(counts.categories[&Category::Reasoning].counted, 1);
        assert_eq!(counts.unmapped, 2);
        assert_eq!(counts.scenarios["x"], Count { printed: 0, counted: 1 });
    }
}
