//! The figures of README.md beside those of the last demo.

/// The line with which README's block of answers begins.
const BEGIN: &str = "Answers from ";

/// Returns whether the README shows the answers that the demo printed, in words.
pub(crate) fn compared(readme: &str, printed: &str) -> String {
    let Some(shown) = block(readme) else {
        return "README.md shows no answers of the demo".to_owned();
    };
    let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    let printed = lines(printed.trim());
    let differing: Vec<String> = lines(shown).into_iter().filter(|line| !printed.contains(line)).collect();
    match differing.as_slice() {
        [] => "README.md shows these answers.".to_owned(),
        [first, ..] => format!(
            "README.md shows other answers in {} lines, as on another processor, where sampled answers differ. The first:\n{first}",
            differing.len()
        ),
    }
}

/// Returns the answers in README's fenced block.
fn block(readme: &str) -> Option<&str> {
    let (_, after) = readme.split_once(&format!("```text\n{BEGIN}"))?;
    let (inside, _) = after.split_once("\n```")?;
    Some(inside.split_once('\n')?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_figures_are_named() {
        let readme = "# Title\n```text\nAnswers from 2 seeds\na  +1.0\nb  −0.5\n```\nmore";
        assert_eq!(
            compared(readme, "Answers from 2 seeds\na  +1.0\nb  −0.5\n"),
            "README.md shows these answers."
        );
        let other = compared(readme, "Answers from 2 seeds\na  +1.0\nb  −0.6\n");
        assert!(other.contains("in 1 lines") && other.ends_with("b  −0.5"), "{other}");
        assert!(compared("# Title", "").contains("no answers"));
    }
}
