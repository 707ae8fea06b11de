//! LaTeX tables in the style of `booktabs`.

use super::layout::{Layout, Note, is_marked, one_line};
use super::value::Shown;
use super::{Align, Table};

const MARK: Note<'static> =
    Note { sign: String::new(), words: "Bold: the interval of the difference excludes 0." };

pub(super) fn render(table: &Table) -> String {
    let layout = Layout::new(table);
    let mut lines = vec![
        "\\begin{table}".to_owned(),
        "  \\centering".to_owned(),
        format!("  \\caption{{{}}}", escape(&table.title)),
        format!("  \\label{{{}}}", label(&table.id)),
    ];
    if !layout.columns.is_empty() {
        lines.extend(tabular(&layout));
    }
    let notes = layout.notes(table, MARK);
    if !notes.is_empty() {
        lines.push("  \\par\\smallskip".to_owned());
        lines.push("  \\begin{minipage}{\\linewidth}\\footnotesize".to_owned());
        for Note { sign, words } in notes {
            let gap = if sign.is_empty() { "" } else { "~" };
            lines.push(format!("    {}{gap}{}\\par", escape(&sign), escape(words)));
        }
        lines.push("  \\end{minipage}".to_owned());
    }
    lines.push("\\end{table}\n".to_owned());
    lines.join("\n")
}

fn tabular(layout: &Layout<'_>) -> Vec<String> {
    let letters: String = layout.columns.iter().map(|column| letter(column.align)).collect();
    let mut lines = vec![
        "  \\par\\smallskip".to_owned(),
        // Shrinks a table that is wider than the page, and only such a one.
        "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%".to_owned(),
        format!("  \\begin{{tabular}}{{{letters}}}"),
        "    \\toprule".to_owned(),
    ];
    if layout.has_groups() {
        let spans = layout.spans();
        let grouped = || spans.iter().filter_map(|span| span.group.map(|group| (span, group)));
        let cells: Vec<_> = spans
            .iter()
            .map(|span| match span.group {
                Some(group) => format!("\\multicolumn{{{}}}{{c}}{{{}}}", span.len, escape(group)),
                None => String::new(),
            })
            .collect();
        let rules: String = grouped()
            .map(|(span, _)| format!("\\cmidrule(lr){{{}-{}}}", span.start + 1, span.start + span.len))
            .collect();
        lines.push(format!("    {} \\\\", cells.join(" & ")));
        lines.push(format!("    {rules}"));
    }
    let headers: Vec<_> = layout.columns.iter().map(|column| escape(&column.header)).collect();
    lines.push(format!("    {} \\\\", headers.join(" & ")));
    lines.push("    \\midrule".to_owned());
    for row in &layout.rows {
        let cells: Vec<_> = row.iter().map(|shown| cell(layout, shown)).collect();
        lines.push(format!("    {} \\\\", cells.join(" & ")));
    }
    lines.push("    \\bottomrule".to_owned());
    lines.push("  \\end{tabular}}".to_owned());
    lines
}

fn letter(align: Align) -> char {
    match align {
        Align::Left => 'l',
        Align::Center => 'c',
        Align::Right => 'r',
    }
}

fn cell(layout: &Layout<'_>, shown: &Shown<'_>) -> String {
    match shown {
        Shown::Words(words) => escape(words),
        Shown::Number(number) => escape(number),
        Shown::Missing(reason) => escape(&layout.missing(reason)),
        Shown::Interval { value, low, high, .. } => {
            // The brackets stand behind the estimate, so no command before the row can take them for its option.
            let text = format!("{} [{}, {}]", escape(value), escape(low), escape(high));
            if is_marked(shown) { format!("\\textbf{{\\boldmath {text}}}") } else { text }
        }
    }
}

/// Returns a valid LaTeX label.
fn label(id: &str) -> String {
    id.chars().filter(|sign| sign.is_ascii_alphanumeric() || matches!(sign, '-' | ':' | '.')).collect()
}

/// Returns plain text as LaTeX source for all engines, including pdfLaTeX without Greek fonts.
fn escape(words: &str) -> String {
    let mut latex = String::with_capacity(words.len());
    for character in one_line(words).chars() {
        match character {
            '\\' => latex.push_str("\\textbackslash{}"),
            '~' => latex.push_str("\\textasciitilde{}"),
            '^' => latex.push_str("\\textasciicircum{}"),
            '<' => latex.push_str("\\textless{}"),
            '>' => latex.push_str("\\textgreater{}"),
            '|' => latex.push_str("\\textbar{}"),
            '"' => latex.push_str("\\textquotedbl{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                latex.push('\\');
                latex.push(character);
            }
            // After the `\\` that ends a row, these would be read as its argument.
            '[' | ']' | '*' => latex.push_str(&format!("{{{character}}}")),
            '—' => latex.push_str("---"),
            '–' => latex.push_str("--"),
            '…' => latex.push_str("\\ldots{}"),
            '’' => latex.push('\''),
            _ => match math(character) {
                Some(command) => latex.push_str(&format!("${command}$")),
                None => latex.push(character),
            },
        }
    }
    latex
}

fn math(character: char) -> Option<&'static str> {
    Some(match character {
        '−' => "-",
        '±' => "\\pm",
        '×' => "\\times",
        '·' => "\\cdot",
        '≤' => "\\le",
        '≥' => "\\ge",
        '≠' => "\\ne",
        '≈' => "\\approx",
        '→' => "\\to",
        '∞' => "\\infty",
        '√' => "\\surd",
        'α' => "\\alpha",
        'β' => "\\beta",
        'γ' => "\\gamma",
        'δ' => "\\delta",
        'ε' => "\\varepsilon",
        'θ' => "\\theta",
        'κ' => "\\kappa",
        'λ' => "\\lambda",
        'μ' | 'µ' => "\\mu",
        'π' => "\\pi",
        'ρ' => "\\rho",
        'σ' => "\\sigma",
        'τ' => "\\tau",
        'φ' => "\\varphi",
        'χ' => "\\chi",
        'Δ' => "\\Delta",
        'Σ' => "\\Sigma",
        '⁰' => "^0",
        '¹' => "^1",
        '²' => "^2",
        '³' => "^3",
        '⁴' => "^4",
        '⁵' => "^5",
        '⁶' => "^6",
        '⁷' => "^7",
        '⁸' => "^8",
        '⁹' => "^9",
        _ => return None,
    })
}
