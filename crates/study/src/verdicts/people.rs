//! The claims by people's ratings, and by the judges that they correct.

use experiment::{Analysis, Scorer, Scorers, Setup};
use report::table::{Align, Column, Table, Value};

use super::{GROUND_TRUTH, Settled};
use crate::claims::Claim;
use crate::contrast::Contrast;
use crate::error::StudyError;
use crate::people::{Correction, Rated};
use crate::tested::{Measured, corrected, difference, p_value};

/// A claim by people alone, and by one judge that they correct.
#[derive(Clone, Debug)]
pub(super) struct ByPeople {
    pub(super) people: Measured,
    pub(super) corrected: Measured,
    /// The weight of the judge.
    lambda: f64,
    /// The number of rated questions.
    pub(super) rated: usize,
}

/// Tests claims by people, and by `scorer` as they correct it. People's p-values and corrected ones are two families.
pub(super) fn by_people(
    (analysis, scorer, margin): (&Analysis<'_>, &Scorer, f64),
    claims: &[Claim<'_>],
    rated: &Rated,
) -> Result<Vec<Option<ByPeople>>, StudyError> {
    let correct = |contrast: &Contrast<'_>| rated.correct(contrast, (analysis, scorer, margin));
    let found = claims.iter().map(|claim| correct(&claim.contrast)).collect::<Result<Vec<_>, _>>()?;
    let family = |of: fn(&Correction) -> crate::contrast::Measurement| {
        let measure = |contrast: &Contrast<'_>| Ok(correct(contrast)?.as_ref().map(of));
        let measured: Vec<_> = found.iter().map(|found| found.as_ref().map(of)).collect();
        corrected(&measure, claims, &measured)
    };
    let (people, by_both) = (family(|found| found.people.clone())?, family(|found| found.corrected.clone())?);
    let all = found.iter().zip(people.into_iter().zip(by_both)).map(|(found, (people, corrected))| {
        let Correction { lambda, rated, .. } = *found.as_ref()?;
        Some(ByPeople { people: people?, corrected: corrected?, lambda, rated })
    });
    Ok(all.collect())
}

/// Returns the differences by judge, by people, and corrected; `None` without ratings.
pub(crate) fn people_table(setup: &Setup, settled: &[Settled]) -> Option<Table> {
    let rated: Vec<&Settled> =
        settled.iter().filter(|claim| claim.by_people.iter().any(Option::is_some)).collect();
    let questions =
        rated.iter().flat_map(|claim| claim.by_people.iter().flatten()).map(|by| by.rated).max()?;
    let Scorers { judge, second, .. } = Scorers::of(setup);
    let is_sandbox = rated.iter().any(|claim| claim.gold.is_some());
    let right = |name: &str| Column::new(name, Align::Right);
    let mut columns = ["Table", "Comparison"].map(|name| Column::new(name, Align::Left)).to_vec();
    columns.push(right("People"));
    for scorer in [Some(judge), second].into_iter().flatten() {
        let of_judge = |name: &str| Column::grouped(&scorer.title, name, Align::Right);
        columns.extend(["Difference", "Corrected", "p", "λ"].map(of_judge));
    }
    columns.extend(is_sandbox.then(|| right(GROUND_TRUTH)));
    let rows = rated.iter().map(|claim| {
        let mut row = vec![Value::text(claim.place), Value::text(&claim.comparison)];
        let people = claim.by_people.iter().flatten().next().map(|by| difference(&by.people));
        row.push(people.unwrap_or_else(unrated));
        let judges = [Some(&claim.judge), claim.second.as_ref().map(|(measured, _)| measured)];
        for (measured, by) in judges.into_iter().flatten().zip(&claim.by_people) {
            row.push(difference(measured));
            row.extend(match by {
                Some(ByPeople { corrected, lambda, .. }) => [
                    difference(corrected),
                    p_value(corrected.shown.p),
                    Value::Number { value: *lambda, decimals: 2 },
                ],
                None => [(); 3].map(|()| unrated()),
            });
        }
        row.extend(claim.gold.as_ref().map(difference));
        row
    });
    let who = match is_sandbox {
        true => "Gold quality takes the people's place.",
        false => "People's ratings are those of study.ratings.",
    };
    Some(Table {
        id: "people".into(),
        title: "Differences by judge, by people, and corrected".into(),
        columns,
        rows: rows.collect(),
        notes: vec![format!(
            "{who} They rate up to {questions} of {} questions. Corrected: prediction-powered inference (PPI++) from the ratings and the \
             judge's scores of all questions; λ: the judge's weight; p: with Holm's correction, for trends of the regression line \
             alone. Comparisons that the data choose, such as the fall from a peak, are not corrected.",
            setup.questions
        )],
    })
}

fn unrated() -> Value {
    Value::missing("fewer than two questions with ratings of all its policies")
}
