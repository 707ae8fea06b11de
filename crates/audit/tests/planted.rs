//! Planted faults are found, each with its share in the interval.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use audit::{
    Action, Audit, Bench, CleanOptions, Dataset, Fault, NoiseMethod, Options, Plan, Prices, ReadAs, audit,
    clean, diff,
};
use rand::RngExt;
use seeds::{Seeds, Stream};
use serde_json::{Value, json};

/// Random text: sentences of made-up words.
struct Writer(Stream);

impl Writer {
    fn new(seed: u64) -> Self {
        Self(Seeds::new(seed).stream("text"))
    }

    fn words(&mut self, count: usize) -> String {
        let word = |stream: &mut Stream| format!("w{}", stream.random_range(0..50_000_u32));
        (0..count).map(|_| word(&mut self.0)).collect::<Vec<_>>().join(" ")
    }

    /// A pair of answers of the same length.
    fn row(&mut self) -> Value {
        json!({"prompt": self.words(12) + "?", "chosen": self.words(30) + ".", "rejected": self.words(30) + "."})
    }

    fn rows(&mut self, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.row()).collect()
    }
}

fn write(folder: &Path, name: &str, rows: &[Value]) -> PathBuf {
    let path = folder.join(name);
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(&path, lines).expect("the folder is writable");
    path
}

fn read(path: &Path) -> Dataset {
    Dataset::read(path, &ReadAs::default()).expect("preferences")
}

fn audited(data: &Dataset) -> Audit {
    audit(data, &Options::new(Plan::MT_BENCH)).expect("an audit")
}

fn swapped(row: &Value) -> Value {
    json!({"prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]})
}

fn with(row: &Value, key: &str, text: impl Into<String>) -> Value {
    let mut row = row.clone();
    row[key] = Value::String(text.into());
    row
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().expect("text").to_owned()
}

#[test]
fn each_planted_fault_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = Writer::new(1);
    let mut rows = writer.rows(600);
    let mut planted: Vec<(Fault, usize)> = Vec::new();
    let mut plant =
        |fault: Fault, count: usize, rows: &mut Vec<Value>, make: &mut dyn FnMut(&Value) -> Value| {
            let start = planted.iter().map(|(_, count)| count).sum::<usize>();
            for row in &mut rows[start..start + count] {
                *row = make(row);
            }
            planted.push((fault, count));
        };
    let sorry = "I'm sorry, but I can't help with that.";
    plant(Fault::Identical, 9, &mut rows, &mut |row| with(row, "rejected", text(row, "chosen") + "  "));
    plant(Fault::NearIdentical, 8, &mut rows, &mut |row| with(row, "rejected", text(row, "chosen") + "!"));
    plant(Fault::EmptyResponse, 5, &mut rows, &mut |row| with(row, "rejected", "  "));
    plant(Fault::EmptyPrompt, 4, &mut rows, &mut |row| with(row, "prompt", " "));
    plant(Fault::RefusalChosen, 12, &mut rows, &mut |row| with(row, "chosen", sorry));
    plant(Fault::RefusalBoth, 6, &mut rows, &mut |row| {
        with(&with(row, "chosen", sorry), "rejected", format!("{sorry} Ask me another thing."))
    });
    plant(Fault::Truncated, 15, &mut rows, &mut |row| {
        with(row, "chosen", text(row, "chosen").replace('.', " the"))
    });
    plant(Fault::Markup, 11, &mut rows, &mut |row| with(row, "chosen", text(row, "chosen") + "<|im_end|>"));
    plant(Fault::NextTurn, 7, &mut rows, &mut |row| {
        with(row, "rejected", text(row, "rejected") + "\n\nHuman: And?")
    });
    plant(Fault::PromptInResponse, 10, &mut rows, &mut |row| {
        with(row, "chosen", text(row, "prompt") + " " + &text(row, "chosen"))
    });
    let all = rows.len();
    let found = audited(&read(&write(folder.path(), "pairs.jsonl", &rows)));
    assert_eq!(found.pairs, all);
    for (fault, count) in planted {
        let finding = found.findings.iter().find(|finding| finding.fault == fault);
        let finding = finding.unwrap_or_else(|| panic!("{fault} is not found"));
        assert_eq!(finding.count, count, "{fault}: {:?}", finding.examples);
        let share = count as f64 / all as f64;
        assert!(finding.low <= share && share <= finding.high, "{fault}: {finding:?}");
        assert_eq!(finding.examples.len(), count.min(5));
    }
    // An empty prompt is the same prompt each time; nothing else repeats.
    assert_eq!((found.duplicates.exact, found.contradictions, found.cycles), (0, 0, 0));
    assert_eq!(found.usable_pairs, all - 9 - 5);
}

#[test]
fn repetitions_are_found_and_cleaned() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = Writer::new(2);
    let mut rows = writer.rows(500);
    // 12 copies, 8 contradictions, one of them against two votes; 5 cycles; 15 changed prompts.
    rows.extend_from_within(0..12);
    let opposite: Vec<Value> = rows[20..28].iter().map(swapped).collect();
    rows.extend(opposite);
    rows.push(rows[20].clone());
    for _ in 0..5 {
        let prompt = writer.words(12);
        let answers: Vec<String> = (0..3).map(|_| writer.words(20) + ".").collect();
        rows.extend(
            (0..3).map(
                |at| json!({"prompt": prompt, "chosen": answers[at], "rejected": answers[(at + 1) % 3]}),
            ),
        );
    }
    for at in 100..115 {
        let prompt = format!("{} thank you", text(&rows[at], "prompt"));
        rows.push(with(&writer.row(), "prompt", prompt));
    }
    let data = read(&write(folder.path(), "pairs.jsonl", &rows));
    let found = audited(&data);
    assert_eq!(found.duplicates, audit::Duplicates { exact: 13, near: 15 });
    assert_eq!((found.contradictions, found.cycles), (8, 5));
    assert_eq!(found.count(Fault::Cycle), 15);
    assert_eq!(found.count(Fault::Contradiction), 17);
    let noise =
        found.noise.iter().find(|noise| noise.method == NoiseMethod::RepeatedPairs).expect("pairs repeat");
    assert!(noise.low < 0.25 && noise.high > 0.2, "{noise:?}");

    let out = folder.path().join("clean.jsonl");
    let itself = clean(&data, &found, &CleanOptions::default(), &data.path).unwrap_err();
    assert!(matches!(itself, audit::AuditError::SameFile { .. }), "{itself}");
    let report = clean(&data, &found, &CleanOptions::default(), &out).expect("a writable folder");
    assert_eq!(
        (report.written, report.changes.len()),
        (found.usable_pairs, found.pairs - found.usable_pairs)
    );
    let cleaned = audited(&read(&out));
    assert_eq!((cleaned.pairs, cleaned.usable_pairs), (found.usable_pairs, found.usable_pairs));

    let relabel = CleanOptions { relabel: vec![Fault::Contradiction], ..CleanOptions::default() };
    let report = clean(&data, &found, &relabel, &out).expect("a writable folder");
    let relabeled: Vec<_> =
        report.changes.iter().filter(|change| change.action == Action::Relabeled).collect();
    assert_eq!(relabeled.len(), 1, "one contradiction has a majority: {relabeled:?}");
    let majority = audited(&read(&out));
    assert_eq!((majority.contradictions, majority.duplicates.exact), (0, 0));
    assert_eq!(majority.pairs, cleaned.pairs + 1, "the majority's pair is kept once");

    let differences = diff(&found, &majority);
    assert_eq!((differences.relabeled, differences.only_second), (0, 0));
    assert_eq!(differences.only_first, 7);
}

#[test]
fn leaked_questions_and_held_out_prompts_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = Writer::new(3);
    let questions: Vec<String> = (0..20).map(|_| writer.words(25) + "?").collect();
    let bench: Vec<Value> = (0..)
        .zip(&questions)
        .map(|(id, turn)| json!({"question_id": id, "category": "writing", "turns": [turn, "Why?"]}))
        .collect();
    let held_out = writer.rows(50);
    let mut rows = writer.rows(400);
    for at in 0..4 {
        rows[at] = with(&rows[at], "prompt", questions[at].to_uppercase());
    }
    for at in 4..9 {
        rows[at] = with(&rows[at], "chosen", format!("You may ask: {} Or not.", questions[at]));
    }
    // Eight words in a row of a question are no leak.
    rows[9] = with(&rows[9], "chosen", questions[9].split(' ').take(8).collect::<Vec<_>>().join(" ") + ".");
    for at in 0..6 {
        rows[20 + at] = with(&rows[20 + at], "prompt", text(&held_out[at], "prompt"));
    }
    for at in 6..9 {
        rows[20 + at] = with(&rows[20 + at], "prompt", text(&held_out[at], "prompt") + " please");
    }
    let data = read(&write(folder.path(), "pairs.jsonl", &rows));
    let bench = write(folder.path(), "question.jsonl", &bench);
    let options = Options {
        benches: vec![Bench::read(&bench).expect("questions")],
        held_out: vec![read(&write(folder.path(), "held-out.jsonl", &held_out))],
        ..Options::new(Plan::MT_BENCH)
    };
    let found = audit(&data, &options).expect("an audit");
    let leak = &found.leakage[&bench.display().to_string()];
    assert_eq!((leak.exact, leak.ngram, leak.contained, leak.pairs), (4, 9, 9, 9));
    assert_eq!((leak.questions, leak.of_questions), (9, 20));
    let overlap = found.held_out.values().next().expect("one set");
    assert_eq!((overlap.exact, overlap.near), (6, 3));
    assert_eq!(found.usable_pairs, 400 - 9 - 9);
    assert!(found.advice[0].contains("overlaps with the evaluation"), "{:?}", found.advice);
}

#[test]
fn a_planted_preference_for_length_is_covered() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut covered = 0;
    for seed in 0..20 {
        let mut writer = Writer::new(100 + seed);
        let rows: Vec<Value> = (0..300)
            .map(|_| {
                let [long, short] = [40, 20]
                    .map(|count| writer.words(count).chars().take(5 * count).collect::<String>() + ".");
                let (chosen, rejected) =
                    if writer.0.random_bool(0.7) { (long, short) } else { (short, long) };
                json!({"prompt": writer.words(12), "chosen": chosen, "rejected": rejected})
            })
            .collect();
        let found = audited(&read(&write(folder.path(), "pairs.jsonl", &rows)));
        // All differences have one size, so the area is the share of longer chosen responses.
        let length = found.shortcut("length").expect("enough prompts").auc;
        covered += usize::from(length.low <= 0.7 && 0.7 <= length.high);
        let position = found.shortcut("position").expect("the position");
        assert!(position.is_layout && position.auc.auc > 0.999);
        let bound = found.noise.last().expect("a bound");
        assert_eq!(bound.method, NoiseMethod::Features);
        assert!(bound.high > 0.25 && bound.high < 0.45, "{bound:?}");
    }
    assert!(covered >= 17, "{covered} of 20 intervals cover the planted 0.7");
}

#[test]
fn a_planted_preference_for_a_model_is_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = Writer::new(9);
    let named = |writer: &mut Writer| {
        let models = if writer.0.random_bool(0.8) { ["large", "small"] } else { ["small", "large"] };
        with(&with(&writer.row(), "chosen_model", models[0]), "rejected_model", models[1])
    };
    let rows: Vec<Value> = (0..400).map(|_| named(&mut writer)).collect();
    let found = audited(&read(&write(folder.path(), "pairs.jsonl", &rows)));
    let source = found.shortcut("answer source").expect("the models are named").auc;
    assert!(source.low < 0.8 && 0.8 < source.high && source.low > 0.7, "{source:?}");
    let without = audited(&read(&write(folder.path(), "pairs.jsonl", &writer.rows(60))));
    assert!(without.shortcut("answer source").is_none());
}

#[test]
fn labels_without_a_shortcut_show_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows = Writer::new(5).rows(800);
    let found = audited(&read(&write(folder.path(), "pairs.jsonl", &rows)));
    for feature in ["length", "all"] {
        let area = found.shortcut(feature).expect("enough prompts").auc;
        assert!(area.low < 0.5 && area.high > 0.45, "{feature}: {area:?}");
    }
    assert!(
        found.verdict.starts_with("Usable: 800 of 800 pairs, with unknown label noise"),
        "{}",
        found.verdict
    );
}

#[test]
fn second_labels_show_the_planted_noise() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = Writer::new(6);
    let truth = writer.rows(1000);
    let mut labeled = |rate: f64, name: &str| {
        let rows: Vec<Value> = truth
            .iter()
            .map(|row| if writer.0.random_bool(rate) { swapped(row) } else { row.clone() })
            .collect();
        read(&write(folder.path(), name, &rows))
    };
    let (data, second, third) =
        (labeled(0.2, "pairs.jsonl"), labeled(0.2, "second.jsonl"), labeled(0.1, "third.jsonl"));
    let with_second = |second: Vec<Dataset>| {
        audit(&data, &Options { second, ..Options::new(Plan::MT_BENCH) }).expect("an audit")
    };
    let two = with_second(vec![second]);
    let noise = &two.noise[0];
    assert_eq!(noise.method, NoiseMethod::TwoAnnotators);
    assert!(noise.low < 0.2 && 0.2 < noise.high && noise.high - noise.low < 0.1, "{noise:?}");
    let three = with_second(vec![read(&folder.path().join("second.jsonl")), third]);
    let noise = &three.noise[0];
    assert_eq!(noise.method, NoiseMethod::DawidSkene);
    assert!(noise.low < 0.2 && 0.2 < noise.high, "{noise:?}");
    assert!(three.verdict.starts_with("Not good enough, the labels are too noisy"), "{}", three.verdict);

    // Outvoted labels are relabeled: the file then agrees with the truth more often.
    let out = folder.path().join("clean.jsonl");
    let relabel = CleanOptions { relabel: vec![Fault::Outvoted], ..CleanOptions::default() };
    clean(&data, &three, &relabel, &out).expect("a writable folder");
    let wrong = |audit: &Audit, truth: &Audit| diff(audit, truth).relabeled;
    let truth = audited(&read(&write(folder.path(), "truth.jsonl", &truth)));
    let (before, after) = (wrong(&three, &truth), wrong(&audited(&read(&out)), &truth));
    assert!((150..250).contains(&before) && after < before / 2, "{before} wrong labels become {after}");
}

/// Writes margins as `pref-train` does: each pair once in each of two epochs.
fn write_deltas(path: &Path, margins: &[f64]) {
    let pairs = margins.len();
    let twice = |value: &dyn Fn(usize, usize) -> f64| -> ArrayRef {
        Arc::new((0..2 * pairs).map(|at| value(at / pairs, at % pairs)).collect::<Float64Array>())
    };
    let columns: [(&str, ArrayRef); 4] = [
        ("epoch", twice(&|epoch, pair| epoch as f64 + (pair + 1) as f64 / pairs as f64)),
        (
            "pair",
            Arc::new((0..2 * pairs).map(|at| Some((at % pairs + 1).to_string())).collect::<StringArray>()),
        ),
        ("flipped", Arc::new(BooleanArray::from(vec![false; 2 * pairs]))),
        // In the second epoch every label is learnt.
        ("delta", twice(&|epoch, pair| if epoch == 0 { margins[pair] } else { margins[pair].abs() + 9.0 })),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let file = std::fs::File::create(path).expect("the folder is writable");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a schema");
    writer.write(&batch).expect("the disk has room");
    writer.close().expect("the disk has room");
}

#[test]
fn margins_of_a_run_bound_the_planted_noise() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = Writer::new(10);
    let rows = writer.rows(1000);
    // A policy that is right on 95% of the true labels, of which 20% are flipped.
    let margin = |stream: &mut Stream| {
        let is_right = stream.random_bool(0.95) != stream.random_bool(0.2);
        if is_right { 2.0 } else { -2.0 }
    };
    let margins: Vec<f64> = (0..1000).map(|_| margin(&mut writer.0)).collect();
    let path = folder.path().join("pair_deltas.parquet");
    write_deltas(&path, &margins);
    let data = read(&write(folder.path(), "pairs.jsonl", &rows));
    let options = |path: &Path| Options {
        deltas: Some(audit::PairDeltas::read(path).expect("margins")),
        ..Options::new(Plan::MT_BENCH)
    };
    let found = audit(&data, &options(&path)).expect("an audit");
    let noise = &found.noise[0];
    assert_eq!((noise.method, noise.pairs), (NoiseMethod::PairDeltas, 500));
    assert!(noise.low == 0.0 && noise.high > 0.2 && noise.high < 0.3, "{noise:?}");
    let other = read(&write(folder.path(), "few.jsonl", &rows[..20]));
    let error = audit(&other, &options(&path)).expect_err("the run's later pairs are not in it").to_string();
    assert!(error.contains("audit the file that the run trained on"), "{error}");
    let error =
        audit::PairDeltas::read(&folder.path().join("pairs.jsonl")).expect_err("no parquet").to_string();
    assert!(error.contains("pair_deltas.parquet"), "{error}");
}

#[test]
fn labels_of_other_pairs_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = read(&write(folder.path(), "pairs.jsonl", &Writer::new(7).rows(30)));
    let other = read(&write(folder.path(), "other.jsonl", &Writer::new(8).rows(30)));
    let options = Options { second: vec![other], ..Options::new(Plan::MT_BENCH) };
    let error = audit(&data, &options).expect_err("no pair matches").to_string();
    assert!(error.contains("none of its pairs is in"), "{error}");
}

/// Pairs of answers of 12 words, of which a share `known` has the label of words with a hidden quality, others a random one.
fn by_words(count: usize, known: f64) -> Vec<Value> {
    const WORDS: usize = 400;
    let mut stream = Seeds::new(11).stream("quality");
    let quality: Vec<f64> = (0..WORDS).map(|_| stream.random_range(-1.0..1.0)).collect();
    let row = |at: usize| {
        let mut answer = || -> (f64, String) {
            let words: Vec<usize> = (0..12).map(|_| stream.random_range(0..WORDS)).collect();
            let text: Vec<String> = words.iter().map(|word| format!("v{word}")).collect();
            (words.iter().map(|&word| quality[word]).sum(), text.join(" "))
        };
        let [first, second] = [answer(), answer()];
        let is_first = if stream.random_bool(known) { first.0 > second.0 } else { stream.random_bool(0.5) };
        let (chosen, rejected) = if is_first { (first.1, second.1) } else { (second.1, first.1) };
        json!({"prompt": format!("p{at} q{at} r{at} s{at}?"), "chosen": chosen, "rejected": rejected})
    };
    (0..count).map(row).collect()
}

#[test]
fn a_learning_curve_rises_where_pairs_teach_and_is_at_chance_without_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let curve = |name: &str, known: f64| {
        let audit = audited(&read(&write(folder.path(), name, &by_words(1500, known))));
        (audit.learning_curve.clone().expect("many pairs"), audit.to_text())
    };
    let (taught, text) = curve("taught.jsonl", 1.0);
    let accuracies: Vec<f64> = taught.points.iter().map(|point| point.accuracy).collect();
    assert!(accuracies.is_sorted() && taught.last().accuracy > 0.75, "{accuracies:?}");
    assert_eq!(taught.points.iter().map(|point| point.pairs).collect::<Vec<_>>(), [75, 150, 300, 600, 1200]);
    assert!(taught.last_doubling.low > 0.0 && text.contains("It still rises."), "{taught:?}\n{text}");
    assert!(text.contains("Collect more pairs"), "{text}");
    let (random, text) = curve("random.jsonl", 0.0);
    assert!(!random.has_learnt() && text.contains("not above chance"), "{random:?}");
}

#[test]
fn prices_of_labels_and_judgments_are_multiplied() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = read(&write(folder.path(), "pairs.jsonl", &by_words(400, 1.0)));
    let prices = Prices { label: Some(0.25), judge_call: Some(0.5) };
    let audit = audit(&data, &Options { prices, ..Options::new(Plan::MT_BENCH) }).expect("an audit");
    let text = audit.to_text().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("as many pairs again, 100.00 USD, add at most"), "{text}");
    let (seeds, _) =
        (audit.enough.required.iter()).find_map(|sample| Some((sample.number?, sample))).unwrap();
    let calls = seeds * 2 * 80 * 2;
    assert!(text.contains(&format!("{calls} calls of the judge, {:.2} USD", calls as f64 / 2.0)), "{text}");
}
