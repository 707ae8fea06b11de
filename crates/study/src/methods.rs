//! The methods of a study, from its recipe.

use experiment::{LEVEL, RESAMPLES, percent};
use pref_loss::LogpReduction;
use trainer::recipe::{Dtype, Scheduler};

use crate::evidence::POWER;
use crate::recipe::StudyRecipe;

/// Returns the paragraphs of the report's methods.
pub(crate) fn methods(recipe: &StudyRecipe) -> Vec<String> {
    let mut paragraphs = vec![training(recipe), replicates(recipe)];
    paragraphs.extend(answers(recipe));
    paragraphs.push(judging(recipe));
    paragraphs.push(intervals(recipe));
    paragraphs.push(tests(recipe));
    paragraphs
}

fn training(recipe: &StudyRecipe) -> String {
    let train = &recipe.train;
    let decay = match train.scheduler {
        Scheduler::Linear => "linearly to 0",
        Scheduler::Cosine => "along half a cosine to 0",
        Scheduler::Constant => "constant",
        Scheduler::Wsd => "constant until it decays to 0",
    };
    let computing = match recipe.model.dtype {
        Dtype::Bfloat16 => "bfloat16 if the machine supports it",
        Dtype::Float32 => "float32",
    };
    let reduction = match recipe.loss.logp_reduction {
        LogpReduction::Sum => "sums over tokens",
        LogpReduction::Mean => "means over tokens",
    };
    let adapters = match recipe.lora.rank {
        0 => String::new(),
        rank => format!(" Only adapters of rank {rank} are trained."),
    };
    format!(
        "Training. Every policy starts from the supervised policy, which is also the reference. The optimizer is AdamW (β {} and {}, ε \
         {:e}, weight decay {}) with {} pairs per step and learning rate {} after {}% of warm-up, then {decay}, for {} epochs unless \
         a table says otherwise. Gradients are clipped to a norm of {}. Master weights are float32, computation is in \
         {computing}.{adapters} cDPO and robust DPO take ε = {}; IPO compares {reduction}. Flips swap a random share of a policy's \
         labels; smaller shares of the pairs are subsets of larger ones.",
        train.betas[0],
        train.betas[1],
        train.eps,
        train.weight_decay,
        train.batch_size,
        train.learning_rate,
        percent(train.warmup_ratio),
        train.epochs,
        train.max_grad_norm,
        recipe.loss.label_smoothing,
    )
}

fn replicates(recipe: &StudyRecipe) -> String {
    let seeds = recipe.study.seeds;
    let what = match recipe.is_sandbox() {
        true => "pairs, labels, order, flips, sampling of answers, and errors of the judges",
        false => "order of the pairs, shares, flips, and sampling of answers",
    };
    let records = recipe.data.held_out.map(|records| format!("{records} records"));
    let share = recipe.data.split.map(|share| format!("{}% of the records", percent(share)));
    let held_out = records.or(share).map_or(String::new(), |records| {
        format!(" At least {records} are held out of training, by whole prompts; β is chosen on them.")
    });
    format!(
        "Replicates. There are {seeds} seeds. Each draws {what}; all share the supervised policy. Policies of one seed differ only in \
         the compared property.{held_out}"
    )
}

fn answers(recipe: &StudyRecipe) -> Option<String> {
    (!recipe.is_sandbox()).then(|| {
        let system = match &recipe.answers.system {
            Some(words) if words.is_empty() => " after an empty system message".to_owned(),
            Some(words) => format!(" after the system message “{words}”"),
            None => String::new(),
        };
        let date = recipe.answers.date.as_ref().or(recipe.data.date.as_ref()).map(|date| format!("date {date}"));
        let mut kwargs = recipe.data.chat_template_kwargs.clone();
        kwargs.extend(recipe.answers.chat_template_kwargs.clone());
        let kwargs = kwargs.iter().map(|(name, value)| format!("{name} = {value}"));
        let variables: Vec<String> = date.into_iter().chain(kwargs).collect();
        let variables = match variables.is_empty() {
            true => String::new(),
            false => format!(" ({})", variables.join(", ")),
        };
        format!(
            "Answers. Both turns of each question, with the model's chat template{variables}{system}, FastChat's temperature of the category, \
             and at most {} tokens.",
            recipe.answers.max_new_tokens
        )
    })
}

fn judging(recipe: &StudyRecipe) -> String {
    if recipe.is_sandbox() {
        return "Judging. Two simulated judges rate each turn from 1 to 10: gold quality with a random error. The second judge also \
                has the LLM annotator's bias. Gold quality is computed from question and answer."
            .to_owned();
    }
    let judges = recipe.judge.all().map(|judge| {
        let repeats = match judge.repeats.get() {
            1 => String::new(),
            repeats => format!(", the median of {repeats} ratings"),
        };
        format!("{} (temperature {}{repeats})", judge.name(), judge.temperature)
    });
    format!(
        "Judging. Single grading with FastChat's prompts and the references of some categories, by {}. The last verdict from 1 to 10 \
         counts. A judge that gives none is called again up to {} times; turns without a rating are left out and counted below the \
         tables.",
        judges.collect::<Vec<_>>().join(" and "),
        recipe.judge.reasks
    )
}

fn intervals(recipe: &StudyRecipe) -> String {
    let further = match recipe.is_sandbox() {
        true => format!(
            " The ground truth is mean gold quality on {} held-out questions, which no judge rates.",
            recipe.sandbox.further_questions
        ),
        false => String::new(),
    };
    let seeds = match recipe.study.seeds {
        1 => {
            "With one seed, differences apply to these very policies: their intervals cover the sampling of questions only."
        }
        _ => {
            "Intervals of differences cover the sampling of questions, stratified by category, and of seeds. The variance between \
              seeds is pooled over the policies of the study, in three groups: clean labels, 10% flipped labels or more, and earlier \
              checkpoints; a group of fewer than four policies is joined to the largest one. The effect that a seed has on all \
              policies cancels in a difference."
        }
    };
    format!(
        "Intervals. Intervals of scores are {}% percentile bootstrap intervals with {RESAMPLES} resamples of whole questions, which keep \
         the turns and seeds of a question together; they are conditional on these seeds. {seeds}{further}",
        percent(LEVEL)
    )
}

fn tests(recipe: &StudyRecipe) -> String {
    format!(
        "Verdicts. Each claim is a contrast of mean scores with a t-test, Satterthwaite's degrees of freedom included. “No relationship” is \
         tested by the largest of the trend and all differences between levels, and overfitting by the largest fall from an earlier \
         checkpoint (max-contrast tests). p-values of effects, and separately those of equivalence, are corrected by Holm's method over all \
         comparisons of one research question. Two one-sided tests establish that every effect is within ±{} points, which study.margin \
         sets. The default of 0.2 is about three standard deviations of a mean score that is judged again: FastChat reports a range of 0.16 \
         over five runs of GPT-4 on the same answers. Absent effects are interpretable only where training on clean labels gains over SFT. \
         The minimum detectable effect (MDE) and the required sample are those of {}% power after the correction, with 90% intervals.",
        recipe.study.margin.get(),
        percent(POWER)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Preset;

    #[test]
    fn methods_depend_on_the_recipe() {
        let of = |preset| methods(&StudyRecipe::preset(preset, &[]).unwrap()).join("\n");
        let sandbox = of(Preset::Sandbox);
        assert!(sandbox.contains("Two simulated judges") && sandbox.contains("1000 held-out questions"));
        let paper = of(Preset::Paper);
        assert!(paper.contains("by gpt-4 (temperature 0)") && paper.contains("16 pairs per step"), "{paper}");
        assert!(paper.contains("after an empty system message") && !paper.contains("simulated"), "{paper}");
    }
}
