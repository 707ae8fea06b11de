//! The largest models that train in a given memory.

use policy_model::{Lora, ModelConfig, Targets};
use serde_json::json;
use tch::{Device, Kind};

use super::Examples;
use super::memory::{Memory, Precision, WidestMicroBatch};
use crate::error::TrainError;
use crate::input::Input;
use crate::moments::MomentKind;
use crate::parameters::Trained;
use crate::recipe::Recipe;
use crate::run::{scoring, settings};
use crate::scoring::{Activations, Scoring};

/// The largest model of Llama's shape that a method of training fits into a GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct LargestModel {
    /// The method, as the keys of a recipe that choose it.
    pub method: String,
    /// The number of parameters.
    pub parameters: u64,
    /// The number of layers.
    pub layers: usize,
    /// The width of the residual stream.
    pub hidden_size: usize,
    /// Its memory.
    pub memory: Memory,
}

/// The width of a head. A model has as many layers as heads, which is the shape of Llama 7B and 13B.
const HEAD: usize = 128;
/// The rank of adapters where the recipe has none.
const RANK: usize = 16;

/// Returns the largest models of Llama's shape with the recipe's vocabulary that train on its data in `bytes` of one GPU, by
/// method, with activation checkpointing. A method that not even the smallest shape fits is left out.
///
/// # Errors
///
/// The errors that a run returns about recipe and data before its first step.
pub fn largest_models(recipe: &Recipe, bytes: u64) -> Result<Vec<LargestModel>, TrainError> {
    let input = Input::read(recipe, None)?;
    let has_preferences = recipe.loss.build()?.is_some();
    let settings = settings(recipe, Kind::BFloat16)?;
    let scoring = Scoring { activations: Activations::Recomputed, ..scoring(recipe, input.pad_id) };
    let widest = Examples::new(&input, has_preferences).widest(&settings, scoring);
    let adapters = match settings.trained {
        Trained::All => Trained::Adapters(Lora::new(RANK, RANK as f64, Targets::AllLinear)),
        adapters @ Trained::Adapters(_) => adapters,
    };
    let rank = if recipe.lora.trains_adapters() { recipe.lora.rank } else { RANK };
    let of = |moments, is_quantized| Precision { kind: Kind::BFloat16, moments, is_quantized };
    let methods = [
        ("all weights, adamw".to_owned(), Trained::All, of(MomentKind::Float, false)),
        ("all weights, adamw8bit".to_owned(), Trained::All, of(MomentKind::EightBit, false)),
        (format!("adapters of rank {rank}"), adapters.clone(), of(MomentKind::Float, false)),
        (format!("adapters of rank {rank}, nf4"), adapters, of(MomentKind::Float, true)),
    ];
    let fitting = methods.into_iter().map(|(method, trained, precision)| {
        largest(method, (&trained, precision), scoring, widest, (input.config.vocab_size, bytes))
    });
    Ok(fitting.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn largest(
    method: String,
    (trained, precision): (&Trained, Precision),
    scoring: Scoring,
    widest: WidestMicroBatch,
    (vocabulary, bytes): (usize, u64),
) -> Result<Option<LargestModel>, TrainError> {
    let mut largest = None;
    for heads in 1.. {
        let config = shape(heads, vocabulary)?;
        let on_gpu = (precision, Device::Cuda(0));
        let memory = Memory::of_training(&config, trained, on_gpu, scoring, widest);
        if memory.total() > bytes {
            break;
        }
        largest = Some(LargestModel {
            method: method.clone(),
            parameters: config.parameter_count(),
            layers: heads,
            hidden_size: heads * HEAD,
            memory,
        });
    }
    Ok(largest)
}

/// Returns a model of Llama's shape: heads of 128, as many layers, a gated block of 8/3 of the width.
fn shape(heads: usize, vocabulary: usize) -> Result<ModelConfig, TrainError> {
    let hidden = heads * HEAD;
    Ok(ModelConfig::from_json(json!({
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": (8 * hidden).div_ceil(3).next_multiple_of(256),
        "num_hidden_layers": heads,
        "num_attention_heads": heads,
    }))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORING: Scoring = Scoring { activations: Activations::Recomputed, ..Scoring::FAST };
    const WIDEST: WidestMicroBatch = WidestMicroBatch { tokens: 1024, joined: 1536, scored: 512, scores: 0 };

    #[test]
    fn thirty_two_heads_are_llama_7b() {
        let config = shape(32, 32_000).unwrap();
        assert_eq!((config.parameter_count(), config.intermediate_size), (6_738_415_616, 11_008));
    }

    #[test]
    fn the_largest_fits_and_the_next_does_not() {
        let adapters = Trained::Adapters(Lora::new(RANK, 16.0, Targets::AllLinear));
        let budget = 24_000_000_000;
        let mut sizes = Vec::new();
        for (trained, moments, is_quantized) in [
            (&Trained::All, MomentKind::Float, false),
            (&Trained::All, MomentKind::EightBit, false),
            (&adapters, MomentKind::Float, false),
            (&adapters, MomentKind::Float, true),
        ] {
            let precision = Precision { kind: Kind::BFloat16, moments, is_quantized };
            let of = |bytes| {
                let found = largest(String::new(), (trained, precision), SCORING, WIDEST, (32_000, bytes));
                found.unwrap().unwrap()
            };
            let LargestModel { parameters, layers, memory, .. } = of(budget);
            assert!(memory.total() <= budget);
            let next = shape(layers + 1, 32_000).unwrap();
            let on_gpu = (precision, Device::Cuda(0));
            assert!(Memory::of_training(&next, trained, on_gpu, SCORING, WIDEST).total() > budget);
            assert!(of(2 * budget).parameters > parameters);
            sizes.push(parameters as f64 / 1e9);
        }
        assert!(sizes.is_sorted(), "{sizes:?}");
        // 18 and 12 bytes a weight, then 2, and half a byte.
        for (size, bounds) in sizes.iter().zip([(1.0, 1.4), (1.5, 2.0), (9.0, 12.0), (30.0, 46.0)]) {
            assert!((bounds.0..bounds.1).contains(size), "{sizes:?}");
        }
    }
}
