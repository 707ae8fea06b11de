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
    /// The judge's points for a doubling of an answer's length, at equal ratings by the people; `None` without lengths.
    pub per_doubling: Option<f64>,
}

/// The least number of answers that a fit is made of.
const LEAST: usize = 20;

impl JudgeFit {
    /// Reads a CSV file with the columns `judge` and `people`, a row for each answer. A column `characters`, the length of the
    /// answer, shows the judge's length bias.
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
        let length = header.iter().position(|column| column.trim() == "characters");
        let (mut rated, mut lengths) = (Vec::new(), Vec::new());
        for (row, record) in table.records().enumerate() {
            let record = record.map_err(|error| failed(error.to_string()))?;
            let number = |at: usize, what: &str, least: f64| {
                let text = record.get(at).unwrap_or_default().trim();
                let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= least);
                number.ok_or_else(|| failed(format!("row {}: {text:?} is not a {what}", row + 1)))
            };
            rated.push([number(columns[0], "rating", f64::MIN)?, number(columns[1], "rating", f64::MIN)?]);
            lengths.extend(length.map(|at| number(at, "number of characters", 1.0)).transpose()?);
        }
        let fit = Self::of(&rated).map_err(|reason| failed(reason.to_owned()))?;
        let per_doubling = length.and_then(|_| length_effect(&rated, &lengths));
        Ok(Self { per_doubling, ..fit })
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
        let correlation = both / (judge * people).sqrt();
        Ok(Self { slope: both / people, correlation, answers: rated.len(), per_doubling: None })
    }
}

/// Returns the coefficient of log₂(characters) in the regression of the judge's ratings on the people's and on it; `None` if
/// people's ratings determine the lengths.
fn length_effect(rated: &[[f64; 2]], lengths: &[f64]) -> Option<f64> {
    let columns = [0, 1, 2].map(|of| {
        let column: Vec<f64> = match of {
            2 => lengths.iter().map(|length| length.log2()).collect(),
            of => rated.iter().map(|pair| pair[of]).collect(),
        };
        let mean = column.iter().sum::<f64>() / column.len() as f64;
        column.into_iter().map(|value| value - mean).collect::<Vec<_>>()
    });
    let sum = |one: usize, other: usize| -> f64 {
        columns[one].iter().zip(&columns[other]).map(|(one, other)| one * other).sum()
    };
    let determinant = sum(1, 1) * sum(2, 2) - sum(1, 2).powi(2);
    let is_determined = determinant <= 1e-9 * sum(1, 1) * sum(2, 2);
    (!is_determined).then(|| (sum(1, 1) * sum(2, 0) - sum(1, 2) * sum(1, 0)) / determinant)
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
    fn the_effect_of_length_is_that_of_the_regression() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("votes.csv");
        let mut text = "people,characters,judge\n".to_owned();
        for at in 0..60 {
            // Lengths that grow with quality, but not only with it.
            let (people, doublings) = (f64::from(at % 8), f64::from(at % 8 + at % 5) / 3.0);
            text +=
                &format!("{people},{},{}\n", 100.0 * doublings.exp2(), 2.0 + 0.5 * people + 0.3 * doublings);
        }
        fs::write(&path, text).unwrap();
        let per_doubling = JudgeFit::read(&path).unwrap().per_doubling.unwrap();
        assert!((per_doubling - 0.3).abs() < 1e-9, "{per_doubling}");
        let rated = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]];
        assert_eq!(length_effect(&rated, &[2.0, 4.0, 8.0]), None, "longer is better, always");
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
        assert!(refused("judge,people,characters\n1,2,0\n").contains("\"0\" is not a number of characters"));
        assert!(refused("judge,people\n1,2\n").contains("fewer than 20 answers"));
    }
}
