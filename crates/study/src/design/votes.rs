//! A judge beside people: how much of an effect it shows.

use std::path::Path;

use crate::error::StudyError;

/// The regression of a judge's ratings on people's ratings of the same answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgeFit {
    /// The judge's points for a point of the people.
    pub slope: f64,
    /// The correlation of the ratings.
    pub correlation: f64,
    /// The number of answers.
    pub answers: usize,
}

/// The least number of answers that a fit is made of.
const LEAST: usize = 20;

impl JudgeFit {
    /// Reads a CSV file with the columns `judge` and `people`, a row for each answer.
    ///
    /// # Errors
    ///
    /// [`StudyError::Votes`] for a file that is not such a table, for fewer than 20 answers, and for people who rate all
    /// answers alike.
    pub fn read(path: &Path) -> Result<Self, StudyError> {
        let failed = |reason: String| StudyError::Votes { path: path.to_owned(), reason };
        let mut table = csv::Reader::from_path(path).map_err(|error| failed(error.to_string()))?;
        let header = table.headers().map_err(|error| failed(error.to_string()))?.clone();
        let column = |name: &str| {
            let found = header.iter().position(|column| column.trim() == name);
            found.ok_or_else(|| failed(format!("has no column `{name}`; it must have `judge` and `people`")))
        };
        let columns = [column("judge")?, column("people")?];
        let mut rated = Vec::new();
        for (row, record) in table.records().enumerate() {
            let record = record.map_err(|error| failed(error.to_string()))?;
            let rating = |at: usize| {
                let text = record.get(at).unwrap_or_default().trim();
                let rating = text.parse::<f64>().ok().filter(|rating| rating.is_finite());
                rating.ok_or_else(|| failed(format!("row {}: {text:?} is not a rating", row + 1)))
            };
            rated.push([rating(columns[0])?, rating(columns[1])?]);
        }
        Self::of(&rated).map_err(|reason| failed(reason.to_owned()))
    }

    /// Fits ratings of the judge and of people, by answer.
    fn of(rated: &[[f64; 2]]) -> Result<Self, &'static str> {
        if rated.len() < LEAST {
            return Err("has fewer than 20 answers; some 200 give a useful fit");
        }
        let mean = |of: usize| rated.iter().map(|pair| pair[of]).sum::<f64>() / rated.len() as f64;
        let means = [mean(0), mean(1)];
        let sum = |one: usize, other: usize| -> f64 {
            rated.iter().map(|pair| (pair[one] - means[one]) * (pair[other] - means[other])).sum()
        };
        let (judge, people, both) = (sum(0, 0), sum(1, 1), sum(0, 1));
        if people <= 0.0 || judge <= 0.0 {
            return Err("has the same rating for all answers");
        }
        if both <= 0.0 {
            return Err(
                "rates better answers lower, by the people's ratings; no design of this judge shows their effects",
            );
        }
        Ok(Self { slope: both / people, correlation: both / (judge * people).sqrt(), answers: rated.len() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_fit_is_the_regression_line() {
        let rated: Vec<[f64; 2]> =
            (0..40).map(|at| [3.0 + 0.5 * f64::from(at % 8), f64::from(at % 8)]).collect();
        let fit = JudgeFit::of(&rated).unwrap();
        assert!((fit.slope - 0.5).abs() < 1e-12 && (fit.correlation - 1.0).abs() < 1e-12, "{fit:?}");
        assert!(JudgeFit::of(&rated[..19]).is_err());
        assert!(JudgeFit::of(&[[5.0, 5.0]; 30]).is_err());
    }

    #[test]
    fn a_judge_that_contradicts_people_is_refused() {
        let rated: Vec<[f64; 2]> = (0..40).map(|at| [10.0 - f64::from(at % 8), f64::from(at % 8)]).collect();
        assert!(JudgeFit::of(&rated).unwrap_err().contains("rates better answers lower"));
    }

    #[test]
    fn a_table_without_ratings_is_refused_by_row_and_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("votes.csv");
        let refused = |text: &str| {
            fs::write(&path, text).unwrap();
            JudgeFit::read(&path).unwrap_err().to_string()
        };
        assert!(refused("judge,human\n1,2\n").contains("has no column `people`"));
        assert!(refused("judge,people\n1,2\n3,many\n").contains("row 2: \"many\" is not a rating"));
        assert!(refused("judge,people\n1,2\n").contains("fewer than 20 answers"));
    }
}
