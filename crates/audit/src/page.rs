//! An audit as a page, and as text for a terminal.

use report::figure::{GroupedBars, LineSeries, Lines, Series, Svg};
use report::page::{Report, Section};
use report::table::{Align, Column, Format, Table, Value};
use stats::{Interval, Source};

use crate::auc::Auc;
use crate::contents::Lengths;
use crate::dataset::Unpaired;
use crate::enough::Enough;
use crate::fault::{Fault, Finding};
use crate::interval;
use crate::learning_curve::{CurvePoint, Gain};
use crate::noise::NoiseEstimate;
use crate::result::Audit;
use crate::shortcuts::Shortcut;
use crate::verdict::{counted, plan_in_words};

/// The width of text.
const WIDTH: usize = 80;

impl Audit {
    /// Returns the audit as text: the answer in at most twelve lines, then the sections.
    pub fn to_text(&self) -> String {
        text(self)
    }

    /// Returns the audit as Markdown.
    pub fn to_markdown(&self) -> String {
        markdown(self)
    }

    /// Returns the audit as a self-contained page.
    pub fn to_html(&self) -> String {
        page(self).to_html()
    }
}

/// Returns the audit as a page.
fn page(audit: &Audit) -> Report {
    let mut lead = vec![audit.verdict.clone()];
    lead.extend(numbers(audit).into_iter().map(|(name, value)| format!("{}: {value}.", capitalized(name))));
    lead.extend(audit.advice.iter().zip(1..).map(|(step, number)| format!("{number}. {step}")));
    Report {
        title: format!("Audit of {}", audit.file),
        lead,
        sections: sections(audit),
        provenance: vec![
            ("File".to_owned(), audit.file.clone()),
            ("Layout".to_owned(), audit.layout.to_owned()),
            ("Annotator".to_owned(), audit.annotator.clone()),
            ("Version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ],
        files: Vec::new(),
    }
}

/// Returns the audit for a terminal of 80 columns: the answer in at most twelve lines, then the sections.
fn text(audit: &Audit) -> String {
    let mut lines = wrapped(&audit.verdict, "", "");
    lines.push(String::new());
    lines.extend(
        numbers(audit).into_iter().flat_map(|(name, value)| wrapped(&value, &format!("{name:<19}"), "")),
    );
    lines.push(String::new());
    for (step, number) in audit.advice.iter().zip(1..) {
        lines.extend(wrapped(step, &format!("{number}. "), "   "));
    }
    for Section { heading, paragraphs, tables, .. } in sections(audit) {
        lines.extend([String::new(), heading.clone(), "=".repeat(heading.chars().count())]);
        lines.extend(paragraphs.iter().flat_map(|paragraph| wrapped(&paragraph.replace('`', ""), "", "")));
        for table in &tables {
            lines.push(String::new());
            lines.extend(table.render_within(WIDTH).trim_end().lines().map(str::to_owned));
        }
    }
    lines.join("\n")
}

/// Returns the audit as Markdown.
fn markdown(audit: &Audit) -> String {
    let Report { title, lead, sections, .. } = page(audit);
    let mut text = format!("# {title}\n\n{}\n", lead.join("\n\n"));
    for Section { heading, paragraphs, tables, .. } in sections {
        text += &format!("\n## {heading}\n");
        paragraphs.iter().for_each(|paragraph| text += &format!("\n{paragraph}\n"));
        tables.iter().for_each(|table| text += &format!("\n{}", table.render(Format::Markdown)));
    }
    text.trim_end().to_owned()
}

fn capitalized(name: &str) -> String {
    let mut characters = name.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// Breaks a text into lines. The first begins with `first`, the others with `others` or as much white space.
fn wrapped(text: &str, first: &str, others: &str) -> Vec<String> {
    let indent = if others.is_empty() { " ".repeat(first.chars().count()) } else { others.to_owned() };
    let mut lines = vec![first.to_owned()];
    let mut is_start = true;
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a line");
        let length = line.chars().count();
        if is_start || length + 1 + word.chars().count() <= WIDTH {
            line.push_str(if is_start { "" } else { " " });
            line.push_str(word);
        } else {
            lines.push(format!("{indent}{word}"));
        }
        is_start = false;
    }
    lines
}

/// Returns the three numbers of the verdict, in words.
fn numbers(audit: &Audit) -> [(&'static str, String); 3] {
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let Interval { low, high, .. } = interval::of_share(audit.usable_pairs, audit.pairs);
    let share = audit.usable_pairs as f64 / audit.pairs as f64;
    let mut usable = format!(
        "{} of {}, {} [{:.1}, {:.1}]",
        audit.usable_pairs,
        audit.pairs,
        percent(share),
        100.0 * low,
        100.0 * high
    );
    if audit.contents.unreadable > 0 {
        usable += &format!("; {} cannot be read", counted(audit.contents.unreadable, "row"));
    }
    let noise = match audit.noise.first() {
        None => "unknown".to_owned(),
        Some(noise) if noise.method.identifies() => format!(
            "{} [{:.1}, {:.1}], from {}",
            percent(noise.estimate),
            100.0 * noise.low,
            100.0 * noise.high,
            noise.method.title()
        ),
        Some(noise) => format!("at most {}; one set of labels shows no more", percent(noise.high)),
    };
    let effect = format!("{:.2} points, in {}", audit.detectable_effect, plan_in_words(audit));
    [("usable pairs", usable), ("label noise", noise), ("detectable effect", effect)]
}

fn sections(audit: &Audit) -> Vec<Section> {
    let broken: Vec<Fault> = Fault::ALL.into_iter().take_while(|fault| *fault != Fault::Duplicate).collect();
    vec![
        contents(audit),
        section("Broken", broken_paragraphs(audit), faults(audit, "broken", &broken)),
        section(
            "Duplicates and contradictions",
            duplicate_paragraphs(audit),
            faults(
                audit,
                "duplicates",
                &[Fault::Duplicate, Fault::Contradiction, Fault::Cycle, Fault::NearDuplicate],
            ),
        ),
        leakage(audit),
        shortcuts(audit),
        noise(audit),
        enough(audit),
    ]
}

fn section(heading: &str, paragraphs: Vec<String>, tables: Vec<Table>) -> Section {
    Section { heading: heading.to_owned(), paragraphs, tables, ..Section::default() }
}

fn table(id: &str, title: &str, columns: &[(&str, Align)], rows: Vec<Vec<Value>>) -> Table {
    let columns = columns.iter().map(|(header, align)| Column::new(*header, *align)).collect();
    Table { id: id.to_owned(), title: title.to_owned(), columns, rows, notes: Vec::new() }
}

fn contents(audit: &Audit) -> Section {
    let contents = &audit.contents;
    let mut paragraphs = vec![format!(
        "{} in layout `{}` give {} with labels of `{}` and {}.",
        counted(audit.rows, "row"),
        audit.layout,
        counted(audit.pairs, "pair"),
        audit.annotator,
        counted(contents.prompts, "different prompt"),
    )];
    for (number, text) in [
        (contents.unreadable, "cannot be read"),
        (contents.filtered, "are left out by the layout's filter"),
        (contents.unlabelled, "have no label of this annotator"),
        (contents.ties, "are ties"),
    ] {
        if number > 0 {
            paragraphs.push(format!("{} {text}.", counted(number, "row")));
        }
    }
    if let Some(Unpaired { responses, unmatched }) = contents.unpaired {
        paragraphs.push(format!(
            "The file has {responses} single responses; under each prompt, desirable and undesirable ones are paired in \
             their order, each once. Not audited, since they have no counterpart: {}.",
            counted(unmatched, "response"),
        ));
    }
    if contents.several_turns > 0 {
        paragraphs.push(format!("{} have several turns.", counted(contents.several_turns, "pair")));
    }
    if !contents.domains.is_empty() {
        let domains: Vec<String> =
            contents.domains.iter().map(|(domain, count)| format!("{domain} ({count})")).collect();
        paragraphs.push(format!("Largest domains: {}.", domains.join(", ")));
    }
    paragraphs.extend(contents.notes.iter().map(|note| format!("The reader: {note}.")));
    if let Some(tokens) = &audit.tokens {
        paragraphs.push(tokens.to_string());
        paragraphs.extend(tokens.warnings().into_iter().map(|warning| format!("{}.", capitalized(&warning))));
        paragraphs.extend(tokens.skipped.first().map(|first| format!("`{}`: {}.", first.id, first.problem)));
    }
    let row = |name: &str, lengths: &Lengths| {
        let Lengths { least, tenth, median, ninth, most } = *lengths;
        let counts = [least, tenth, median, ninth, most].map(|length| Value::Count(length as u64));
        std::iter::once(Value::text(name)).chain(counts).collect()
    };
    let right = Align::Right;
    let columns = [
        ("Text", Align::Left),
        ("least", right),
        ("10%", right),
        ("median", right),
        ("90%", right),
        ("most", right),
    ];
    let rows = vec![
        row("prompt", &contents.prompt),
        row("chosen", &contents.chosen),
        row("rejected", &contents.rejected),
    ];
    let mut tables = vec![table("lengths", "Lengths in words", &columns, rows)];
    if !contents.unreadable_examples.is_empty() {
        let examples = contents.unreadable_examples.iter();
        let rows =
            examples.map(|example| vec![Value::text(&example.place), Value::text(&example.text)]).collect();
        tables.push(table(
            "unreadable",
            "Rows that cannot be read",
            &[("Where", Align::Left), ("Problem", Align::Left)],
            rows,
        ));
    }
    section("What is in it", paragraphs, tables)
}

fn broken_paragraphs(audit: &Audit) -> Vec<String> {
    let is_broken = |finding: &&Finding| finding.fault < Fault::Duplicate;
    let count = audit.findings.iter().filter(is_broken).count();
    vec![match count {
        0 => "No pair is empty, identical, refused, truncated, or has markup or wrong roles.".to_owned(),
        _ => "Heuristics find these; look at the examples before you remove pairs.".to_owned(),
    }]
}

fn duplicate_paragraphs(audit: &Audit) -> Vec<String> {
    vec![format!(
        "Exact duplicates: {}. Near-duplicate prompts: {}. Comparisons with labels in both directions: {}. Prompts with a \
         cycle of preferences: {}.",
        audit.duplicates.exact, audit.duplicates.near, audit.contradictions, audit.cycles,
    )]
}

/// Returns the table of some faults and that of their examples; nothing where none occurs.
fn faults(audit: &Audit, id: &str, which: &[Fault]) -> Vec<Table> {
    let found: Vec<&Finding> =
        audit.findings.iter().filter(|finding| which.contains(&finding.fault)).collect();
    if found.is_empty() {
        return Vec::new();
    }
    let row = |finding: &&Finding| {
        vec![
            Value::text(finding.fault.title()),
            Value::Count(finding.count as u64),
            share(finding.count, finding.of, finding.low, finding.high),
            Value::text(finding.fault.advice().replace('`', "")),
        ]
    };
    let columns = [
        ("Finding", Align::Left),
        ("Pairs", Align::Right),
        ("Share, % [95%]", Align::Right),
        ("What to do", Align::Left),
    ];
    let counts = table(id, "Findings", &columns, found.iter().map(row).collect());
    let mut rows = Vec::new();
    for finding in &found {
        let names = std::iter::once(finding.fault.title()).chain(std::iter::repeat(""));
        for (example, name) in finding.examples.iter().zip(names) {
            rows.push(vec![Value::text(name), Value::text(&example.place), Value::text(&example.text)]);
        }
    }
    let columns = [("Finding", Align::Left), ("Where", Align::Left), ("Example", Align::Left)];
    vec![counts, table(&format!("{id}-examples"), "Examples, up to five each", &columns, rows)]
}

fn share(count: usize, of: usize, low: f64, high: f64) -> Value {
    let value = 100.0 * count as f64 / of.max(1) as f64;
    Value::Interval { value, low: 100.0 * low, high: 100.0 * high, decimals: 2 }
}

fn leakage(audit: &Audit) -> Section {
    let mut paragraphs = Vec::new();
    for (file, leak) in &audit.leakage {
        paragraphs.push(format!(
            "`{file}`: {} overlap, with {} of {} questions. {} equal a question, {} share 13 words in a row with one, {} \
             contain 70% of its runs of 8 words.",
            counted(leak.pairs, "pair"),
            leak.questions,
            leak.of_questions,
            leak.exact,
            leak.ngram,
            leak.contained
        ));
    }
    for (file, overlap) in &audit.held_out {
        paragraphs.push(format!(
            "`{file}`: {} with a prompt of it, {} with a near-duplicate.",
            counted(overlap.exact, "pair"),
            overlap.near
        ));
    }
    if audit.leakage.is_empty() {
        paragraphs.push(
            "No benchmark is compared; `--bench question.jsonl` names one, such as MT-Bench's questions."
                .to_owned(),
        );
    }
    if audit.held_out.is_empty() {
        paragraphs.push("No held-out set is compared; `--held-out FILE` names one.".to_owned());
    }
    section("Leakage", paragraphs, faults(audit, "leakage", &[Fault::Leak, Fault::HeldOut]))
}

fn shortcuts(audit: &Audit) -> Section {
    if audit.shortcuts.is_empty() {
        let paragraph = "Fewer than 30 groups of prompts: too few to predict labels on other prompts.";
        return section("Shortcuts", vec![paragraph.to_owned()], Vec::new());
    }
    let mut paragraphs = vec![
        "The area under the ROC curve of a feature that predicts the labels of other prompts: 0.5 is chance, 1 is every \
         label. Cross-validation has five folds by groups of near-duplicate prompts. The row `all` is the joint logistic \
         regression, without the position."
            .to_owned(),
    ];
    if audit.shortcuts.iter().any(|shortcut| shortcut.is_layout) {
        paragraphs.push(format!(
            "The position says nothing about the labels: the layout `{}` puts the chosen response first.",
            audit.layout
        ));
    }
    let row = |shortcut: &Shortcut| {
        let Auc { auc, low, high } = shortcut.auc;
        let reading = match (shortcut.is_layout, low) {
            (true, _) => "a fact of the layout",
            (_, low) if low > 0.65 => "strong: balance it, or correct for it in evaluation",
            (_, low) if low > 0.55 => "visible: report results by it",
            (_, low) if low > 0.5 => "weak",
            _ => "none seen",
        };
        vec![
            Value::text(shortcut.feature),
            Value::Interval { value: auc, low, high, decimals: 3 },
            Value::text(reading),
        ]
    };
    let columns = [("Feature", Align::Left), ("AUC [95%]", Align::Right), ("Reading", Align::Left)];
    let rows = audit.shortcuts.iter().map(row).collect();
    let mut section = section(
        "Shortcuts",
        paragraphs,
        vec![table("shortcuts", "Labels predicted by surface features", &columns, rows)],
    );
    let real: Vec<_> = audit.shortcuts.iter().filter(|shortcut| !shortcut.is_layout).collect();
    let values = real.iter().map(|shortcut| Some((shortcut.auc.auc, shortcut.auc.low, shortcut.auc.high)));
    section.figures.push(bars(
        "Labels predicted by surface features",
        ("area under the ROC curve", (0.4, 1.0)),
        real.iter().map(|shortcut| shortcut.feature.to_owned()).collect(),
        values.collect(),
    ));
    section
}

fn bars(
    title: &str,
    (y_label, y_range): (&str, (f64, f64)),
    groups: Vec<String>,
    values: Vec<Option<(f64, f64, f64)>>,
) -> (Svg, String) {
    let series = vec![Series { name: y_label.to_owned(), values }];
    let bars = GroupedBars { title: title.to_owned(), y_label: y_label.to_owned(), y_range, groups, series };
    (bars.to_svg(), "Estimates with 95% intervals.".to_owned())
}

fn noise(audit: &Audit) -> Section {
    let mut paragraphs = Vec::new();
    if !audit.other_annotators.is_empty() {
        paragraphs.push(format!("Other annotators: {}.", audit.other_annotators.join(", ")));
    }
    if !audit.noise.iter().any(|noise| noise.method.identifies()) {
        paragraphs.push(
            "One set of labels does not show how many of them are wrong. A second annotator of 300 random pairs does: \
             `--second LABELS`."
                .to_owned(),
        );
    }
    if audit.noise.is_empty() {
        return section("Noise", paragraphs, Vec::new());
    }
    paragraphs.extend(
        audit
            .noise
            .iter()
            .map(|noise| format!("{} assumes: {}.", capitalized(noise.method.title()), noise.assumes)),
    );
    let row = |noise: &NoiseEstimate| {
        let [value, low, high] = [noise.estimate, noise.low, noise.high].map(|share| 100.0 * share);
        let rate = match noise.method.identifies() {
            true => Value::Interval { value, low, high, decimals: 1 },
            // The estimate of a method that only bounds the rate would be read as the rate.
            false => Value::text(format!("at most {high:.1}")),
        };
        vec![Value::text(noise.method.title()), rate, Value::Count(noise.pairs as u64)]
    };
    let columns = [("Method", Align::Left), ("Wrong labels, % [95%]", Align::Right), ("Pairs", Align::Right)];
    let tables =
        vec![table("noise", "Share of wrong labels", &columns, audit.noise.iter().map(row).collect())];
    let tables = tables.into_iter().chain(faults(audit, "outvoted", &[Fault::Outvoted])).collect();
    let mut section = section("Noise", paragraphs, tables);
    let known: Vec<_> = audit.noise.iter().filter(|noise| noise.method.identifies()).collect();
    if known.is_empty() {
        return section;
    }
    let values = known.iter().map(|noise| Some((noise.estimate, noise.low, noise.high)));
    section.figures.push(bars(
        "Share of wrong labels by method",
        ("share of wrong labels", (0.0, 0.5)),
        known.iter().map(|noise| noise.method.title().to_owned()).collect(),
        values.collect(),
    ));
    section
}

fn enough(audit: &Audit) -> Section {
    let Enough { plan, detectable_effect, of_clean_labels, equivalent_clean_pairs, required, prices } =
        &audit.enough;
    let mut paragraphs = vec![format!(
        "With {} and {}, a difference of two policies is found with a power of 80% from {detectable_effect:.2} points on, \
         at 5% over {}. This assumes a deviation of {} points between questions, and of {} between seeds.",
        counted(plan.questions, "question"),
        counted(plan.seeds, "seed"),
        counted(plan.comparisons, "comparison"),
        plan.deviation,
        plan.seed_deviation
    )];
    if plan.seeds < 2 {
        paragraphs.push(
            "With one seed this is about these very runs, not about training on these pairs.".to_owned(),
        );
    }
    if let (Some(effect), Some(pairs)) = (of_clean_labels, equivalent_clean_pairs) {
        paragraphs.push(format!(
            "At the estimated noise the usable pairs weigh as much as {pairs:.0} clean ones, and these labels show the \
             difference only if clean labels had one of {effect:.2} points. Both are first-order: random flips shrink the \
             gradient by 1 − 2ε."
        ));
    }
    for sample in required {
        let (name, calls) = match sample.source {
            Source::Seeds => ("seeds", sample.number.map(|seeds| (plan.questions, seeds))),
            _ => ("questions", sample.number.map(|questions| (questions, plan.seeds))),
        };
        let calls = calls.map(|(questions, seeds)| Enough::judge_calls(questions, seeds));
        paragraphs.push(match (sample.number, calls) {
            (Some(number), Some(calls)) => format!(
                "A difference of {} points takes {number} {name}: {calls} calls of the judge{}.",
                Enough::TARGET,
                cost(calls, prices.judge_call)
            ),
            _ => format!("No number of {name} alone shows a difference of {} points.", Enough::TARGET),
        });
    }
    let mut section = section("Enough?", paragraphs, Vec::new());
    learning_curve(audit, &mut section);
    section
}

/// Returns what a number of things costs; nothing without a price.
fn cost(number: usize, price: Option<f64>) -> String {
    price.map_or_else(String::new, |price| format!(", {:.2} USD", number as f64 * price))
}

/// Adds the learning curve of the proxy.
fn learning_curve(audit: &Audit, section: &mut Section) {
    let Some(curve) = &audit.learning_curve else {
        let text = "Too few pairs or prompts for a learning curve.";
        return section.paragraphs.push(text.to_owned());
    };
    let Gain { gain, low, high } = curve.last_doubling;
    let [gain, low, high] = [gain, low, high].map(|share| 100.0 * share);
    let last = curve.last();
    section.paragraphs.push(format!(
        "Would more pairs help? A linear model of words, trained on parts of these pairs, ranks pairs of other prompts: a \
         cheap proxy for what a policy learns. From {} to {} training pairs its accuracy changes by {gain:+.1} points \
         [{low:+.1}, {high:+.1}].",
        curve.points[curve.points.len() - 2].pairs,
        last.pairs,
    ));
    let again = format!("as many pairs again{}", cost(audit.usable_pairs, audit.enough.prices.label));
    section.paragraphs.push(match curve.has_learnt() {
        false => {
            "Its accuracy is not above chance, so the curve does not say whether more pairs would help.".to_owned()
        }
        true if low > 0.0 => format!(
            "It still rises. With diminishing returns, {again}, add at most {high:.1} points."
        ),
        true if high < 1.0 => format!("It is flat: with diminishing returns, {again}, add less than {high:.1} points."),
        true => format!("The interval covers both a rise and none: with diminishing returns, {again}, add at most {high:.1} points."),
    });
    let row = |point: &CurvePoint| {
        let CurvePoint { pairs, accuracy, low, high } = *point;
        let [value, low, high] = [accuracy, low, high].map(|share| 100.0 * share);
        vec![Value::Count(pairs as u64), Value::Interval { value, low, high, decimals: 1 }]
    };
    let columns = [("Training pairs", Align::Right), ("Accuracy, % [95%]", Align::Right)];
    let rows = curve.points.iter().map(row).collect();
    section.tables.push(table("learning-curve", "A proxy's accuracy on other prompts", &columns, rows));
    let points = curve.points.iter().map(|point| {
        let [y, low, high] = [point.accuracy, point.low, point.high].map(|share| 100.0 * share);
        ((point.pairs as f64).log2(), y, Some((low, high)))
    });
    let lines = Lines {
        title: "Accuracy of the proxy by training pairs".to_owned(),
        x_label: "training pairs".to_owned(),
        y_label: "accuracy on other prompts, %".to_owned(),
        y_range: None,
        x_ticks: curve
            .points
            .iter()
            .map(|point| ((point.pairs as f64).log2(), point.pairs.to_string()))
            .collect(),
        series: vec![LineSeries { name: "linear model of words".to_owned(), points: points.collect() }],
        second: None,
    };
    section.figures.push((lines.to_svg(), "Shares with 95% intervals.".to_owned()));
}
