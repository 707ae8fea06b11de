//! Beyond the paper: the conditions under which its patterns arise.

use experiment::Grid;
use report::table::Table;

use crate::conditions::{Map, comparisons, figure, sentences, table};
use crate::error::StudyError;
use crate::question::{About, Question};
use crate::recipe::StudyRecipe;
use crate::results::{Figure, Results};

/// Under which learning rate, epochs, flips, ε rule and IPO reduction the paper's patterns arise.
pub struct Conditions;

impl Question for Conditions {
    fn about(&self) -> About {
        About {
            name: "map",
            tables: &["map"],
            title: "Conditions map: where the paper's patterns arise",
            help: "DPO, cDPO and IPO at several learning rates and epochs, under flips, two rules for ε, and two reductions of IPO.",
        }
    }

    fn is_on_request(&self) -> bool {
        true
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        Map::new(recipe).grid()
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        let (map, scorers) = (Map::new(results.recipe), results.scorers());
        let by_judge = map.mark(&results.scores, &scorers.judge)?;
        let title = |by: &str| format!("Where the paper's patterns arise, by {by}");
        let Some([_, held_out]) = &scorers.gold else {
            let mut one = table(&map, &by_judge, "table-map", title("the judge"));
            one.notes.extend(sentences(&map, &by_judge, &results.scores, &scorers.judge));
            return Ok(vec![one, comparisons(&map, &by_judge, None)]);
        };
        let by_truth = map.mark(&results.scores, held_out)?;
        let mut truth = table(&map, &by_truth, "table-map", title("the ground truth"));
        truth.notes.extend(sentences(&map, &by_truth, &results.scores, &scorers.judge));
        let judge = table(&map, &by_judge, "table-map-judge", title("the judge"));
        Ok(vec![truth, judge, comparisons(&map, &by_judge, Some(&by_truth))])
    }

    fn figures(&self, results: &Results<'_>) -> Result<Vec<Figure>, StudyError> {
        let (map, scorers) = (Map::new(results.recipe), results.scorers());
        let truth = scorers.gold.as_ref().map(|[_, held_out]| ("figure-map", held_out, "the ground truth"));
        let judge = if truth.is_some() { "figure-map-judge" } else { "figure-map" };
        let mut drawn = Vec::new();
        for (name, scorer, by) in truth.into_iter().chain([(judge, &scorers.judge, "the judge")]) {
            let svg = figure(
                &map,
                &map.mark(&results.scores, scorer)?,
                format!("Where the paper's patterns arise, by {by}"),
            );
            drawn.push(Figure { name, svg, caption: CAPTION });
        }
        Ok(drawn)
    }
}

const CAPTION: &str = "A mark for each pattern, policy and condition, from the tests of the table. The numbers are differences in points, \
                       or the minimum detectable effect.";
