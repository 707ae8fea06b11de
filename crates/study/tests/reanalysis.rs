//! The page is up to date, and the facts on it hold.

use study::paper::{PrintedVerdict, claims, grid, reanalysis, summary, tables};

#[test]
fn the_page_is_up_to_date() {
    let written = include_str!("../../../docs/paper-reanalysis.md");
    let hint = "run `cargo run -p study --example reanalysis > docs/paper-reanalysis.md`";
    assert!(written == reanalysis().unwrap(), "docs/paper-reanalysis.md is out of date: {hint}");
}

#[test]
fn all_tables_are_there_under_their_numbers() {
    let tables = tables().unwrap();
    assert_eq!(tables.iter().map(|table| table.number).collect::<Vec<_>>(), (1..=14).collect::<Vec<_>>());
    assert!(tables.iter().all(|table| !table.caption.is_empty() && !table.rows.is_empty()));
    assert_eq!(tables[5].rows.len(), 55);
    assert!(tables[2].column("Human").is_err() && tables[5].column("Domain - MT Bench (Test)").is_err());
}

#[test]
fn what_stands_in_several_tables_is_the_same_number() {
    let tables = tables().unwrap();
    let column = |number: usize, header: &str| tables[number - 1].column(header).unwrap();
    for (source, place) in [("GPT4-Turbo", 1), ("Human", 2)] {
        let dpo = format!("{source}, Loss = DPO");
        let score = tables[0].column(source).unwrap()[1];
        assert_eq!(tables[0].columns[place], source);
        assert_eq!((column(3, &dpo)[0], column(4, &dpo)[0]), (score, score));
        assert_eq!(column(5, &format!("{dpo}, MT Bench Score"))[3], score);
        assert_eq!(column(5, &format!("{source}, Loss = IPO, MT Bench Score"))[3], column(1, source)[2]);
    }
    for source in ["UltraFeedback", "SHP"] {
        let dpo = format!("{source}, Loss = DPO");
        assert_eq!(column(11, source), column(13, &dpo));
        assert_eq!(column(12, source), column(14, &dpo), "the row that is called 20% there and 25% here too");
        assert_eq!(column(10, source)[1], column(11, source)[0]);
    }
    assert_eq!(tables[11].rows[2][0], "25%");
    assert_eq!(tables[13].rows[2][0], "20%");
    let tuned = ["[1]", "[2]"]
        .map(|which| column(5, &format!("Human, Loss = IPO (Tuned) {which}, MT Bench Score"))[3]);
    assert_eq!(tuned, [column(8, "Human, Loss = DPO (Tuned)")[0], column(8, "Human, Loss = IPO (Tuned)")[0]]);
}

#[test]
fn most_scores_lie_on_the_grid_of_a_single_run() {
    let found = grid(&tables().unwrap()).unwrap();
    assert_eq!((found.scores, found.on_grid), (83, 78));
    let off: Vec<&str> = found.off_grid.iter().map(|(score, _)| score.as_str()).collect();
    assert_eq!(off, ["4.677", "5.664", "5.874", "6.692", "6.733"]);
    assert!(found.off_grid.iter().all(|(_, rows)| rows.contains(&158) || rows.contains(&159)));
    assert!((0.25..0.45).contains(&found.by_chance) && found.log10_p < -20.0, "{found:?}");
}

#[test]
fn verdicts_are_those_that_the_numbers_give() {
    let claims = claims(&tables().unwrap()).unwrap();
    let verdict = |place: &str, words: &str| {
        let found = claims.iter().find(|claim| claim.place == place && claim.finding.contains(words));
        found.unwrap_or_else(|| panic!("no claim about {place} says {words}: {claims:#?}")).verdict
    };
    assert_eq!(verdict("Table 2", "p = 0.125 (mid-p 0.105)"), PrintedVerdict::NotDistinguishable);
    assert_eq!(verdict("Table 3", "strictly monotone"), PrintedVerdict::Contradicted);
    assert_eq!(verdict("Tables 3, 8, 13", "p = 0.083"), PrintedVerdict::NotDistinguishable);
    assert_eq!(verdict("Table 3", "p = 0.25 for a fall"), PrintedVerdict::Contradicted);
    assert_eq!(verdict("Table 4", "p = 0.27 for a fall"), PrintedVerdict::NotDistinguishable);
    assert_eq!(verdict("Tables 12, 14", "exact p = 0.0167"), PrintedVerdict::Contradicted);
    assert_eq!(verdict("Tables 1, 3, 4", "+0.241 and −0.031"), PrintedVerdict::NotDistinguishable);
    assert_eq!(verdict("Tables 4, 9, 14", "in 5 of 5 columns"), PrintedVerdict::Inconsistent);
    assert_eq!(verdict("Tables 5, 8", "best of 11"), PrintedVerdict::NotDistinguishable);
    assert_eq!(verdict("Table 2", "three ways"), PrintedVerdict::NotDistinguishable);
    assert_eq!(verdict("Table 5", "sums log-probabilities"), PrintedVerdict::Survives);
    assert_eq!(
        verdict("Tables 6, 7", "Roleplay 709 against 924, Code 612 against 401"),
        PrintedVerdict::Inconsistent
    );
    assert_eq!(summary().unwrap().rows.len(), claims.len());
}
