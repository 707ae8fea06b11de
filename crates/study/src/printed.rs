//! The paper's own tables, to stand beside ours.

use paper::PaperTable;
use report::table::{Align, Column, Table, Value};

use crate::error::StudyError;
use crate::grid::Question;
use crate::recipe::{PaperSet, StudyRecipe};

/// What the paper prints for a question, of the set that the study's preferences are.
pub(crate) fn printed(question: Question, recipe: &StudyRecipe) -> Result<Vec<Table>, StudyError> {
    let set = recipe.study.paper_set;
    let numbers: &[usize] = match (question, set) {
        (Question::Acquisition, PaperSet::Gair) => &[1, 2, 6, 7],
        (Question::Volume, PaperSet::Gair) => &[3],
        (Question::Quality, PaperSet::Gair) => &[4],
        (Question::Overfitting, PaperSet::Gair) => &[5],
        (Question::Tuned, PaperSet::Gair) => &[8, 9],
        (Question::Acquisition, _) => &[10],
        (Question::Volume, _) => &[11, 13],
        (Question::Quality, _) => &[12, 14],
        _ => &[],
    };
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
    let mut notes = vec!["As printed: one run a cell, no intervals.".to_owned()];
    if is_sandbox {
        notes.push(
            "Another model, other preferences and another judge than the sandbox's: shapes can be compared, numbers cannot."
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
    use crate::recipe::Preset;

    #[test]
    fn the_paper_s_numbers_stand_as_they_are_printed() {
        let recipe = StudyRecipe::preset(Preset::Sandbox, &[]).unwrap();
        let [volume] = &printed(Question::Volume, &recipe).unwrap()[..] else { panic!("one table") };
        assert_eq!((volume.id.as_str(), volume.rows.len()), ("printed-3", 4));
        assert_eq!(volume.rows[0][1], Value::text("6.994"));
        assert_eq!(volume.columns[1], Column::grouped("GPT4-Turbo", "Loss = DPO", Align::Right));
        assert!(printed(Question::MixedLabels, &recipe).unwrap().is_empty());
        let other = StudyRecipe::preset(Preset::Sandbox, &["study.paper_set=shp".to_owned()]).unwrap();
        let ids: Vec<String> =
            printed(Question::Quality, &other).unwrap().into_iter().map(|table| table.id).collect();
        assert_eq!(ids, ["printed-12", "printed-14"]);
    }
}
