//! The model card: `README.md` of the trained model.

use std::fmt::Write as _;
use std::path::Path;

use crate::error::TrainError;
use crate::held_out::HeldOutMetrics;
use crate::metrics::StepMetrics;
use crate::recipe::{DataSection, Recipe};
use crate::run_dir::RunDir;
use crate::run_inputs::RunInputs;

/// The most rows of the table of steps.
const ROWS: usize = 10;

/// What a card says besides the metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Card<'a> {
    pub(crate) recipe: &'a Recipe,
    /// The digests of the run's inputs.
    pub(crate) inputs: &'a RunInputs,
    /// What was read and tokenized.
    pub(crate) data: &'a str,
}

impl Card<'_> {
    /// Returns the card of a run after its last step, or of its checkpoint after `step`.
    ///
    /// Names replace paths: the card has no path of the machine.
    ///
    /// # Errors
    ///
    /// If metrics, evaluations or the base's card cannot be read.
    pub(crate) fn text(&self, dir: &RunDir, step: u64) -> Result<String, TrainError> {
        let (steps, evaluations) = (dir.read_metrics()?, dir.read_evaluations()?);
        let base = public_name(&self.recipe.model.path);
        let license = license_of(Path::new(&self.recipe.model.path))?;
        let mut card = self.front_matter(&base, license.as_deref());
        let kind = self.recipe.loss.kind.name();
        let version = env!("CARGO_PKG_VERSION");
        let _ = write!(
            card,
            "# {base}, {kind}\n\nThis model is `{base}`, trained with the loss `{kind}` for {step} of {} optimizer steps.\n\
             It was made by `pref-train` {version}.\n\n",
            self.inputs.total_steps
        );
        card += &match license {
            Some(license) => format!("The card of the base names the license `{license}`.\n"),
            None => "The base has no card that names a license.\n".to_owned(),
        };
        card += &self.inputs_in_words();
        card += &tables(&steps, &evaluations);
        let recipe = public_recipe(self.recipe).to_toml();
        let _ = write!(card, "\n## Recipe\n\nNames replace paths.\n\n```toml\n{recipe}```\n");
        card += LOADING;
        Ok(card)
    }

    fn front_matter(&self, base: &str, license: Option<&str>) -> String {
        let mut lines = vec!["library_name: transformers".to_owned()];
        // Only the Hub's names have a slash.
        lines.extend(base.contains('/').then(|| format!("base_model: {base}")));
        lines.extend(license.map(|license| format!("license: {license}")));
        lines.extend(["tags:".to_owned(), format!("- {}", self.recipe.loss.kind.name())]);
        format!("---\n{}\n---\n\n", lines.join("\n"))
    }

    fn inputs_in_words(&self) -> String {
        let RunInputs { data, sources, model, adapters, reference, tokenizer, template, .. } = self.inputs;
        let mut text = format!(
            "\n## Data\n\n{}\n\n| source | format | labels | digest |\n|---|---|---|---|\n",
            self.data
        );
        let digests = if sources.is_empty() { std::slice::from_ref(data) } else { sources };
        for (DataSection { path, format, annotator, .. }, digest) in self.recipe.data.iter().zip(digests) {
            let format = serde_json::to_value(format).unwrap_or_default();
            let cells = [&public_name(path), format.as_str().unwrap_or_default(), annotator, digest];
            let _ = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
        text += "\n## Digests\n\n| input | BLAKE3 |\n|---|---|\n";
        let adapters = adapters.as_deref().map(|digest| ("adapters", digest));
        let reference = reference.as_deref().map(|digest| ("reference", digest));
        let rows =
            [("data", data.as_str()), ("base", model), ("tokenizer", tokenizer), ("chat template", template)];
        for (input, digest) in rows.into_iter().chain(adapters).chain(reference) {
            let _ = writeln!(text, "| {input} | `{digest}` |");
        }
        text
    }
}

const LOADING: &str = "
## Loading

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(\"FOLDER OR ID OF THIS MODEL\")
tokenizer = AutoTokenizer.from_pretrained(\"FOLDER OR ID OF THIS MODEL\")
```
";

/// Returns a table of at most [`ROWS`] steps, evenly spaced, and one of the evaluations.
fn tables(steps: &[StepMetrics], evaluations: &[HeldOutMetrics]) -> String {
    let mut text =
        "\n## Training\n\n| step | loss | margin | accuracy | loss, drawn |\n|---|---|---|---|---|\n"
            .to_owned();
    let shown: Vec<&StepMetrics> = match steps.len() {
        0..=ROWS => steps.iter().collect(),
        all => (0..ROWS).map(|row| &steps[row * (all - 1) / (ROWS - 1)]).collect(),
    };
    let most = shown.iter().map(|metrics| metrics.loss).fold(0.0, f64::max);
    for StepMetrics { step, loss, preference, .. } in shown {
        let (margin, accuracy) = (preference.map(|p| p.margin), preference.map(|p| p.accuracy));
        let bar = bar(*loss, most);
        let _ =
            writeln!(text, "| {step} | {loss:.4} | {} | {} | {bar} |", optional(margin), optional(accuracy));
    }
    if evaluations.is_empty() {
        return text;
    }
    text += "\n## Held-out examples\n\n| step | loss | margin | accuracy |\n|---|---|---|---|\n";
    for metrics in evaluations {
        let HeldOutMetrics { step, loss, .. } = metrics;
        let (margin, accuracy) = (optional(metrics.margin()), optional(metrics.accuracy()));
        let _ = writeln!(text, "| {step} | {loss:.4} | {margin} | {accuracy} |");
    }
    text
}

fn optional(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.3}"))
}

/// Returns a bar of up to 20 characters, as long as the share of `value` in `most`.
fn bar(value: f64, most: f64) -> String {
    let share = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
    "█".repeat((20.0 * share).round() as usize)
}

/// Returns the recipe with names in place of paths.
fn public_recipe(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.clone();
    let rename = |path: &mut String| *path = public_name(path);
    rename(&mut recipe.model.path);
    recipe.model.reference.as_mut().map(rename);
    recipe.lora.init.as_mut().map(rename);
    for DataSection { path, eval_path, chat_template, .. } in &mut recipe.data {
        rename(path);
        eval_path.as_mut().map(rename);
        chat_template.as_mut().map(rename);
    }
    // The card does not depend on where the run was.
    recipe.output.dir = "run".into();
    recipe
}

/// Returns the name of a path: `owner/name` in a cache of the Hub, and otherwise the last part.
fn public_name(path: &str) -> String {
    let parts = || Path::new(path).iter().map(|part| part.to_string_lossy());
    let of_hub = parts().find_map(|part| {
        let id = part.strip_prefix("models--").or_else(|| part.strip_prefix("datasets--"))?;
        Some(id.replacen("--", "/", 1))
    });
    let last = || parts().next_back().map(|part| part.into_owned());
    of_hub.or_else(last).unwrap_or_default()
}

/// Returns the license that the front matter of a model's card names.
fn license_of(folder: &Path) -> Result<Option<String>, TrainError> {
    let card = files::read_inside_if_present(folder, Path::new("README.md"))
        .map_err(TrainError::io("cannot read", folder.join("README.md")))?;
    let text = card.map_or(String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
    let Some(front_matter) = text.strip_prefix("---").and_then(|rest| rest.split("\n---").next()) else {
        return Ok(None);
    };
    let value = front_matter.lines().find_map(|line| line.strip_prefix("license:"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || ['-', '.', '_'].contains(&c);
    let license = value.map(|value| value.trim().trim_matches(['"', '\'']).to_owned());
    Ok(license.filter(|license| !license.is_empty() && license.chars().all(is_name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_replace_paths() {
        assert_eq!(public_name("/models/smollm2-135m/"), "smollm2-135m");
        let cached = "/cache/hub/models--HuggingFaceTB--SmolLM2-135M/snapshots/abc";
        assert_eq!(public_name(cached), "HuggingFaceTB/SmolLM2-135M");
        assert_eq!(public_name("/hub/datasets--a--b--c/snapshots/abc/data/train.parquet"), "a/b--c");
        assert_eq!(public_name("pairs.jsonl"), "pairs.jsonl");
        assert_eq!(public_name(""), "");
    }

    #[test]
    fn the_license_is_that_of_the_bases_card() {
        let folder = tempfile::tempdir().unwrap();
        let license = |card: &str| {
            std::fs::write(folder.path().join("README.md"), card).unwrap();
            license_of(folder.path()).unwrap()
        };
        assert_eq!(
            license("---\nlanguage: en\nlicense: apache-2.0\n---\n# A").as_deref(),
            Some("apache-2.0")
        );
        assert_eq!(license("---\nlicense: \"mit\"\n---\n").as_deref(), Some("mit"));
        assert_eq!(license("---\nlanguage: en\n---\nlicense: mit\n"), None);
        assert_eq!(license("license: mit\n"), None);
        assert_eq!(license("---\nlicense: [a](http://b)\n---\n"), None);
    }
}
