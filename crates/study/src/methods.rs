//! How a study was done, in words, from its recipe.

use pref_loss::LogpReduction;
use trainer::Decay;
use trainer::recipe::Dtype;

use crate::analysis::{LEVEL, RESAMPLES};
use crate::cell::percent;
use crate::evidence::{MARGIN, POWER};
use crate::recipe::StudyRecipe;

/// The report's chapter on methods, paragraph by paragraph.
pub(crate) fn methods(recipe: &StudyRecipe) -> Vec<String> {
    let mut told = vec![training(recipe), replicates(recipe)];
    told.extend(answers(recipe));
    told.push(judging(recipe));
    told.push(intervals(recipe));
    told.push(tests());
    told
}

fn training(recipe: &StudyRecipe) -> String {
    let train = &recipe.train;
    let decay = match train.scheduler {
        Decay::Linear => "in a straight line down to 0",
        Decay::Cosine => "along half a cosine down to 0",
        Decay::Constant => "unchanged",
    };
    let computing = match recipe.model.dtype {
        Dtype::Bfloat16 => "bfloat16 where the machine has it",
        Dtype::Float32 => "float32",
    };
    let reduction = match recipe.loss.logp_reduction {
        LogpReduction::Sum => "sums over tokens",
        LogpReduction::Mean => "means over tokens",
    };
    let adapters = match recipe.lora.rank {
        0 => String::new(),
        rank => format!(" Adapters of rank {rank} are trained, all other weights stay."),
    };
    format!(
        "Training. Every policy starts from one supervised policy, which is also the reference, and is trained with AdamW (β {} and \
         {}, ε {:e}, weight decay {}), {} pairs a step, learning rate {} after {}% of warm-up and then {decay}, for {} passes over its \
         pairs unless a table says otherwise; gradients are scaled down to a norm of {}. Weights are float32, computed with in {computing}.{adapters} \
         cDPO and robust DPO take ε = {}; IPO compares {reduction}. Flipped labels swap a random share of a \
         policy's own pairs; smaller shares of the pairs are parts of larger ones.",
        train.betas[0],
        train.betas[1],
        train.eps,
        train.weight_decay,
        train.batch_size,
        train.learning_rate,
        percent(train.warmup_ratio),
        train.epochs,
        train.max_grad_norm,
        recipe.loss.label_smoothing.get(),
    )
}

fn replicates(recipe: &StudyRecipe) -> String {
    let seeds = recipe.study.seeds;
    let what = match recipe.is_sandbox() {
        true => "pairs and labels, their order, flips, the answers' sampling and the judges' errors",
        false => "the order of the pairs, shares, flips and the answers' sampling",
    };
    format!(
        "Replicates. {seeds} seeds, each with {what} of its own; the supervised policy is the same in all of them. Policies of one \
         seed differ in nothing but what is compared."
    )
}

fn answers(recipe: &StudyRecipe) -> Option<String> {
    (!recipe.is_sandbox()).then(|| {
        let system = match &recipe.answers.system {
            Some(words) if words.is_empty() => " behind an empty system message".to_owned(),
            Some(words) => format!(" behind the system message “{words}”"),
            None => String::new(),
        };
        format!(
            "Answers. Both turns of each question, in the model's own chat template{system}, at the temperature that FastChat \
             gives a question's category, of at most {} tokens.",
            recipe.answers.max_new_tokens
        )
    })
}

fn judging(recipe: &StudyRecipe) -> String {
    if recipe.is_sandbox() {
        return "Judging. Two simulated judges rate each turn from 1 to 10: true quality with an error, of which one also has the \
                taste of the LLM annotator. True quality (gold) is computed from question and answer."
            .to_owned();
    }
    let told = recipe.judge.all().map(|judge| {
        let repeats = match judge.repeats.get() {
            1 => String::new(),
            repeats => format!(", the median of {repeats} opinions"),
        };
        format!("{} (temperature {}{repeats})", judge.name(), judge.temperature)
    });
    format!(
        "Judging. Single grading with FastChat's prompts, references where a category has them, by {}. The last verdict from 1 to \
         10 counts; who gives none is asked again {} times, and what stays unreadable is left out and counted below the tables.",
        told.collect::<Vec<_>>().join(" and "),
        recipe.judge.reasks
    )
}

fn intervals(recipe: &StudyRecipe) -> String {
    let further = match recipe.is_sandbox() {
        true => format!(
            " Gold beyond is the mean over {} questions that no judge sees: what the benchmark's questions stand for.",
            recipe.sandbox.further_questions
        ),
        false => String::new(),
    };
    format!(
        "Intervals. Tables give percentile bootstrap intervals of {}% over {RESAMPLES} resamples of whole questions, so that a \
         question's turns and seeds stay together; they hold for these seeds. Differences are paired by question.{further}",
        percent(LEVEL)
    )
}

fn tests() -> String {
    format!(
        "Verdicts. Each claim is a weighted sum of mean scores, taken question by question and seed by seed, with a t-test over \
         what it is to hold for; p-values are corrected by Holm's method over all comparisons of one question. An effect of less \
         than {MARGIN} points counts as none where two one-sided tests say so. Power is told at {}%: how large a true difference \
         has to be to be found so often, and how many questions and seeds would find the one in question.",
        percent(POWER)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Preset;

    #[test]
    fn methods_are_those_of_the_recipe() {
        let of = |preset| methods(&StudyRecipe::preset(preset, &[]).unwrap()).join("\n");
        let sandbox = of(Preset::Sandbox);
        assert!(
            sandbox.contains("Two simulated judges") && sandbox.contains("1000 questions that no judge sees")
        );
        let paper = of(Preset::Paper);
        assert!(paper.contains("by gpt-4 (temperature 0)") && paper.contains("16 pairs a step"), "{paper}");
        assert!(paper.contains("behind an empty system message") && !paper.contains("simulated"), "{paper}");
    }
}
