//! The paper's own tables, next to the study's.

use report::table::{Align, Column, Table, Value};

use crate::error::StudyError;
use crate::paper::{self, PaperTable};
use crate::question::Question;
use crate::recipe::StudyRecipe;

/// Returns the paper's tables on a question, for the study's data set.
pub(crate) fn printed(question: &dyn Question, recipe: &StudyRecipe) -> Result<Vec<Table>, StudyError> {
    let numbers = question.printed(recipe.study.paper_set);
    let all = paper::tables()?;
    let tables = numbers.iter().filter_map(|number| all.iter().find(|table| table.number == *number));
    Ok(tables.map(|table| as_table(table, recipe.is_sandbox())).collect())
}

fn as_table(table: &PaperTable, is_sandbox: bool) -> Table {
    let column = |(at, header): (usize, &String)| match header.rsplit_once(", ") {
        _ if at == 0 => Column::new(header, Align::Left),
        Some((group, name)) => Column::grouped(group, name, Align::Right),
        None => Column::new(header, Align::Right),
    };
    let mut notes = vec!["As printed: one run per cell, without intervals.".to_owned()];
    if is_sandbox {
        notes.push(
            "Model, preferences and judge differ from the sandbox's: trends are comparable, values are not."
                .to_owned(),
        );
    }
    notes.extend(table.notes.clone());
    Table {
        id: format!("printed-{}", table.number),
        title: format!("The paper’s Table {}: {}", table.number, table.caption),
        columns: table.columns.iter().enumerate().map(column).collect(),
        rows: table.rows.iter().map(|row| row.iter().map(Value::text).collect()).collect(),
        notes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::questions::{Mixtures, Noise, Volume};
    use crate::recipe::Preset;

    #[test]
    fn printed_numbers_are_shown_unchanged() {
        let recipe = StudyRecipe::preset(Preset::Sandbox, &[]).unwrap();
        let [volume] = &printed(&Volume, &recipe).unwrap()[..] else { panic!("one table") };
        assert_eq!((volume.id.as_str(), volume.rows.len()), ("printed-3", 4));
        assert_eq!(volume.rows[0][1], Value::text("6.994"));
        assert_eq!(volume.columns[1], Column::grouped("GPT4-Turbo", "Loss = DPO", Align::Right));
        assert!(printed(&Mixtures, &recipe).unwrap().is_empty());
        let other = StudyRecipe::preset(Preset::Sandbox, &["study.paper_set=shp".to_owned()]).unwrap();
        let ids: Vec<String> = printed(&Noise, &other).unwrap().into_iter().map(|table| table.id).collect();
        assert_eq!(ids, ["printed-12", "printed-14"]);
    }
}
