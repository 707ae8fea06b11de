//! Tables in every format.

use proptest::prelude::*;
use report::table::{Align, Column, Format, Table, Value};

fn interval(value: f64, low: f64, high: f64) -> Value {
    Value::Interval { value, low, high, decimals: 2 }
}

fn difference(value: f64, low: f64, high: f64) -> Value {
    Value::Difference { value, low, high, decimals: 2 }
}

fn table_1() -> Table {
    Table {
        id: "table-1".into(),
        title: "Score by policy".into(),
        columns: vec![
            Column::new("Policy", Align::Left),
            Column::grouped("Judge", "Score", Align::Right),
            Column::grouped("Judge", "Difference from SFT", Align::Right),
            Column::grouped("People", "Wins", Align::Right),
            Column::grouped("People", "Win rate", Align::Right),
            Column::new("κ", Align::Center),
        ],
        rows: vec![
            vec![
                Value::text("SFT"),
                interval(5.5, 5.25, 5.75),
                Value::text(""),
                Value::missing("compared with itself"),
                Value::missing("compared with itself"),
                Value::text(""),
            ],
            vec![
                Value::text("DPO | human_1 & <co>"),
                interval(6.994, 6.71, 10.25),
                difference(1.494, 0.96, 2.04),
                Value::Count(112),
                Value::Percent { value: 0.7276, decimals: 1 },
                Value::Number { value: 0.4142, decimals: 2 },
            ],
            vec![
                Value::text("IPO"),
                interval(5.4, 5.1, 5.7),
                difference(-0.1, -0.53, 0.331),
                Value::Count(9),
                Value::missing("too few"),
                Value::Number { value: -0.004, decimals: 2 },
            ],
        ],
        notes: vec![
            "Intervals: 95%, bootstrap over 80 questions, conditional on the seeds; the spread of scores from seed to \
             seed is not in them."
                .into(),
        ],
    }
}

#[test]
fn every_format_of_a_table_with_every_kind_of_value() {
    for format in Format::ALL {
        insta::assert_snapshot!(format.name(), table_1().render(format));
    }
}

#[test]
fn words_too_long_for_a_line_take_several_and_keep_their_column() {
    let words: Vec<String> = (0..60).map(|k| format!("word{k}")).collect();
    let table = Table {
        id: "t".into(),
        title: "t".into(),
        columns: vec![Column::new("who", Align::Left), Column::new("says", Align::Left)],
        rows: vec![vec![Value::text("SFT"), Value::text(words.join(" "))]],
        notes: vec![],
    };
    let text = table.render(Format::Text);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let body: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("SFT")).collect();
    let body = &body[..body.len() - 1];
    assert!(body.len() > 4 && body[1..].iter().all(|line| line.starts_with("     word")), "{text}");
    let told: Vec<&str> = body.iter().flat_map(|line| line.split_whitespace()).skip(1).collect();
    assert_eq!(told, words);
}

#[test]
fn numbers_are_written_as_people_write_them() {
    let shown = |value: Value| {
        let table = Table {
            id: "t".into(),
            title: "t".into(),
            columns: vec![Column::new("x", Align::Left)],
            rows: vec![vec![value]],
            notes: vec![],
        };
        let markdown = table.render(Format::Markdown);
        let row = markdown
            .lines()
            .find(|line| line.starts_with('|') && !line.contains("| x ") && !line.contains(":-"));
        row.expect("a row").trim_matches(['|', ' ']).to_owned()
    };
    assert_eq!(shown(interval(6.994, 6.714, 7.25)), "6.99 [6.71, 7.25]");
    assert_eq!(shown(difference(0.24, -0.05, 0.53)), "+0.24 [−0.05, +0.53]");
    assert_eq!(shown(difference(0.24, 0.05, 0.43)), "**+0.24 [+0.05, +0.43]**");
    assert_eq!(shown(difference(-0.24, -0.43, -0.001)), "**−0.24 [−0.43, 0.00]**");
    // An interval that ends at 0 includes it.
    assert_eq!(shown(difference(0.2, 0.0, 0.4)), "+0.20 [0.00, +0.40]");
    assert_eq!(shown(Value::Number { value: -0.001, decimals: 2 }), "0.00");
    assert_eq!(shown(Value::Number { value: -1.5, decimals: 0 }), "−2");
    assert_eq!(shown(Value::Percent { value: 0.5, decimals: 0 }), "50%");
    assert_eq!(shown(Value::Number { value: f64::NAN, decimals: 2 }), "—¹");
    assert_eq!(shown(interval(1.0, f64::NEG_INFINITY, f64::NAN)), "1.00 [—, —]");
    assert_eq!(shown(Value::Number { value: 0.5, decimals: usize::MAX }), "0.50000000000000000");
}

#[test]
fn csv_names_bounds_and_keeps_full_precision() {
    let csv = table_1().render(Format::Csv);
    let rows = parse_csv(&csv);
    assert_eq!(rows[0][1..4], ["Judge: Score", "Judge: Score low", "Judge: Score high"]);
    assert_eq!(rows[2][1..4], ["6.994", "6.71", "10.25"]);
    assert_eq!(rows[2][8], "0.7276");
}

#[test]
fn json_reads_back_as_the_same_table() {
    let table = table_1();
    let read: Table = serde_json::from_str(&table.render(Format::Json)).expect("our own JSON");
    assert_eq!(read, table);
}

#[test]
fn rows_of_other_lengths_lose_nothing() {
    let table = Table {
        id: "ragged".into(),
        title: "Ragged".into(),
        columns: vec![Column::new("a", Align::Left), Column::new("b", Align::Left)],
        rows: vec![vec![Value::text("1")], vec![Value::text("1"), Value::text("2"), Value::text("3")]],
        notes: vec![],
    };
    assert_eq!(table.render(Format::Csv), "a,b,\n1,,\n1,2,3\n");
    assert!(table.render(Format::Text).contains("1  2  3\n"));
}

#[test]
fn a_table_without_columns_is_its_title() {
    let empty =
        Table { id: "x".into(), title: "Nothing".into(), columns: vec![], rows: vec![], notes: vec![] };
    assert_eq!(empty.render(Format::Text), "Nothing\n");
    assert_eq!(empty.render(Format::Markdown), "**Nothing**\n");
    for format in Format::ALL {
        assert!(empty.render(format).ends_with('\n'));
    }
}

#[test]
fn formats_have_names_that_read_back() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse::<Format>().expect("its own name"), format);
        assert_eq!(serde_json::to_value(format).expect("a name"), format.name());
    }
    let error = "html".parse::<Format>().expect_err("no such format").to_string();
    assert_eq!(error, "unknown format \"html\"; use one of text, md, csv, tex, json");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn csv_is_rectangular_and_keeps_words_and_numbers(table in any_table()) {
        let rows = parse_csv(&table.render(Format::Csv));
        prop_assert_eq!(rows.len(), table.rows.len() + 1);
        prop_assert!(rows.iter().all(|row| row.len() == rows[0].len()));
        for (row, fields) in table.rows.iter().zip(&rows[1..]) {
            let mut from = 0;
            for (at, value) in row.iter().enumerate() {
                match value {
                    Value::Text(words) => prop_assert_eq!(words, &fields[from]),
                    Value::Count(count) => prop_assert_eq!(count, &fields[from].parse::<u64>().expect("a count")),
                    Value::Number { value, .. } | Value::Percent { value, .. } if value.is_finite() => {
                        prop_assert_eq!(value, &fields[from].parse::<f64>().expect("a number"));
                    },
                    Value::Interval { value, low, high, .. } | Value::Difference { value, low, high, .. } => {
                        for (number, field) in [value, low, high].into_iter().zip(&fields[from..]) {
                            prop_assert_eq!(number, &field.parse::<f64>().expect("a number"));
                        }
                    },
                    _ => prop_assert_eq!(&fields[from], ""),
                }
                let bounded = |row: &Vec<Value>| {
                    matches!(row[at], Value::Interval { .. } | Value::Difference { .. })
                };
                from += if table.rows.iter().any(bounded) { 3 } else { 1 };
            }
        }
    }

    #[test]
    fn pipe_tables_have_the_same_pipes_in_every_row(table in any_table()) {
        let markdown = table.render(Format::Markdown);
        let pipes = |line: &str| line.replace("\\\\", "").replace("\\|", "").matches('|').count();
        let rows: Vec<_> = markdown.lines().filter(|line| line.starts_with("| ")).collect();
        prop_assert_eq!(rows.len(), table.rows.len() + 2);
        prop_assert!(rows.iter().all(|row| pipes(row) == table.columns.len() + 1), "{}", markdown);
        prop_assert!(!markdown.contains('<'));
    }

    #[test]
    fn latex_rows_have_the_same_cells_and_balanced_braces(table in any_table()) {
        let latex = table.render(Format::Latex);
        let bare = latex.replace("\\{", "").replace("\\}", "").replace("\\&", "");
        prop_assert_eq!(bare.matches('{').count(), bare.matches('}').count());
        prop_assert_eq!(bare.replace("\\$", "").matches('$').count() % 2, 0);
        let body = bare.split_once("\\midrule\n").expect("a body").1.split_once("    \\bottomrule").expect("an end").0;
        prop_assert_eq!(body.lines().count(), table.rows.len());
        for row in body.lines() {
            prop_assert_eq!(row.matches('&').count(), table.columns.len() - 1, "{}", row);
            prop_assert!(row.ends_with(" \\\\"), "{}", row);
        }
    }

    #[test]
    fn text_has_one_line_a_row_and_nothing_that_drives_a_terminal(table in any_table()) {
        let text = table.render(Format::Text);
        prop_assert!(!text.contains(|sign: char| sign.is_control() && sign != '\n'));
        let lines: Vec<_> = text.lines().collect();
        let end = lines.iter().rposition(|line| line.starts_with('━')).expect("a last rule");
        let header = end - table.rows.len() - 1;
        prop_assert_eq!(lines[header], lines[end].replace('━', "─"));
        let width = lines[end].chars().count();
        prop_assert!(lines[header..end].iter().all(|line| line.chars().count() <= width), "{}", text);
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let number = -1e3..1e3;
    let three = (number.clone(), number.clone(), number, 0..4usize);
    prop_oneof![
        words().prop_map(Value::Text),
        any::<u64>().prop_map(Value::Count),
        (any::<f64>(), 0..4usize).prop_map(|(value, decimals)| Value::Number { value, decimals }),
        (0.0..1.0, 0..3usize).prop_map(|(value, decimals)| Value::Percent { value, decimals }),
        three.clone().prop_map(|(value, low, high, decimals)| Value::Interval { value, low, high, decimals }),
        three.prop_map(|(value, low, high, decimals)| Value::Difference { value, low, high, decimals }),
        words().prop_map(Value::Missing),
    ]
}

/// Words with everything that some format gives a meaning.
fn words() -> impl Strategy<Value = String> {
    "[a-z0-9 |,;\"'\\\\{}$&%#_~^<>*\\[\\]`\n\r\t\u{1b}é−κ]{0,12}"
}

fn any_table() -> impl Strategy<Value = Table> {
    (1..5usize, 0..5usize).prop_flat_map(|(columns, rows)| {
        let column = (words(), proptest::option::of("[ab]")).prop_map(|(header, group)| Column {
            header,
            group,
            align: Align::Right,
        });
        let columns_of = proptest::collection::vec(column, columns);
        let rows_of = proptest::collection::vec(proptest::collection::vec(any_value(), columns), rows);
        (words(), columns_of, rows_of, proptest::collection::vec("[a-z ]{1,150}", 0..2)).prop_map(
            |(title, columns, rows, notes)| Table { id: "table-1".into(), title, columns, rows, notes },
        )
    })
}

/// RFC 4180, read strictly.
fn parse_csv(csv: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut signs = csv.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            '"' => {
                assert!(field.is_empty(), "a quote within a field");
                loop {
                    match signs.next().expect("a closing quote") {
                        '"' if signs.peek() == Some(&'"') => field.extend(signs.next()),
                        '"' => break,
                        other => field.push(other),
                    }
                }
                assert!(matches!(signs.peek(), Some(',' | '\n')), "text after a closing quote");
            }
            ',' => row.push(std::mem::take(&mut field)),
            '\n' => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            other => field.push(other),
        }
    }
    assert!(row.is_empty() && field.is_empty(), "a last line without its end");
    rows
}
