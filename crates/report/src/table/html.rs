//! Tables as part of an HTML page.

use super::layout::{Layout, Note, caption, is_marked};
use super::value::Shown;
use super::{Align, Table};
use crate::escape::escape;

const MARK: Note<'static> =
    Note { sign: String::new(), words: "Bold: the interval of the difference excludes 0." };

/// Renders a table with caption and notes. `id` is its anchor, unique on the page.
pub(crate) fn table_html(table: &Table, id: &str) -> String {
    let layout = Layout::new(table);
    let mut html =
        format!("<figure class=\"table\" id=\"{}\">\n{}<table>\n", escape(id), scrollable(&caption(table)));
    html.push_str(&format!("<caption><span>{}</span></caption>\n", escape(&caption(table))));
    html.push_str(&head(&layout));
    html.push_str("<tbody>\n");
    for row in &layout.rows {
        html.push_str("<tr>");
        for (at, (shown, column)) in row.iter().zip(&layout.columns).enumerate() {
            html.push_str(&cell(&layout, shown, column.align, at));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table></div>\n");
    let notes = layout.notes(table, MARK);
    if !notes.is_empty() {
        html.push_str("<div class=\"notes\">");
        for Note { sign, words } in notes {
            let gap = if sign.is_empty() { "" } else { " " };
            html.push_str(&format!("<p>{sign}{gap}{}</p>", escape(words)));
        }
        html.push_str("</div>\n");
    }
    html.push_str("</figure>\n");
    html
}

/// Opens an element that scrolls sideways, also by keyboard; screen readers call it `name`.
pub(crate) fn scrollable(name: &str) -> String {
    format!("<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{}\">", escape(name))
}

fn head(layout: &Layout<'_>) -> String {
    let mut html = String::from("<thead>\n");
    let header = |at: usize, attributes: &str| {
        let column = &layout.columns[at];
        let class = class(column.align);
        format!("<th scope=\"col\"{class}{attributes}>{}</th>", escape(&column.header))
    };
    if layout.has_groups() {
        html.push_str("<tr>");
        for span in layout.spans() {
            match span.group {
                Some(group) => html.push_str(&format!(
                    "<th scope=\"colgroup\" class=\"group\" colspan=\"{}\"><span>{}</span></th>",
                    span.len,
                    escape(group)
                )),
                None => html.push_str(&header(span.start, " rowspan=\"2\"")),
            }
        }
        html.push_str("</tr>\n<tr>");
        for (at, column) in layout.columns.iter().enumerate() {
            if column.group.is_some() {
                html.push_str(&header(at, ""));
            }
        }
    } else {
        html.push_str("<tr>");
        html.extend((0..layout.columns.len()).map(|at| header(at, "")));
    }
    html.push_str("</tr>\n</thead>\n");
    html
}

fn class(align: Align) -> &'static str {
    match align {
        Align::Left => "",
        Align::Center => " class=\"center\"",
        Align::Right => " class=\"right\"",
    }
}

fn cell(layout: &Layout<'_>, shown: &Shown<'_>, align: Align, column: usize) -> String {
    let class = class(align);
    match shown {
        // The first column names its row.
        Shown::Words(words) if column == 0 && !words.is_empty() => {
            format!("<th scope=\"row\"{class}>{}</th>", escape(words))
        }
        Shown::Words(words) => format!("<td{class}>{}</td>", escape(words)),
        Shown::Number(number) => format!("<td{class}>{}</td>", escape(number)),
        Shown::Missing(reason) => {
            format!("<td{class} title=\"{}\">{}</td>", escape(reason), layout.missing(reason))
        }
        Shown::Interval { value, low, high, .. } => {
            let text = format!("{value} <span class=\"ci\">[{low}, {high}]</span>");
            let text = if is_marked(shown) { format!("<strong>{text}</strong>") } else { text };
            format!("<td{class}>{text}</td>")
        }
    }
}
