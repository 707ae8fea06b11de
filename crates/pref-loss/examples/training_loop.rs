//! A training loop with autograd: `cargo run -p pref-loss --example training_loop`.
//!
//! The model is a table of bigram logits. The chosen responses count up (1 2 3 …), the rejected ones count down.
//! Training increases the reward margin.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::error::Error;

use pref_loss::{Beta, HeadError, PairLogpTensors, PairTokens, PreferenceLoss, sequence_logps};
use tch::{Device, IndexOp, Kind, Tensor};

const VOCAB: i64 = 10;
/// A prompt of one token and a response of four.
const LENGTH: i64 = 5;
const PAIRS: i64 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let loss = PreferenceLoss::Dpo { beta: Beta::new(0.1)? };
    let reference = Tensor::zeros([VOCAB, VOCAB], (Kind::Float, Device::Cpu));
    let mut policy = reference.copy().set_requires_grad(true);
    let prompts = Tensor::arange(PAIRS, (Kind::Int64, Device::Cpu)).unsqueeze(1);
    let steps = Tensor::arange(LENGTH, (Kind::Int64, Device::Cpu)).unsqueeze(0);
    let [chosen, rejected] = [1, -1].map(|slope| (&prompts + &steps * slope).remainder(VOCAB));

    let (ref_logps, tokens) = tch::no_grad(|| score(&reference, &chosen, &rejected))?;
    let tokens = PairTokens { chosen: &tokens[0], rejected: &tokens[1] };
    for step in 0..=50 {
        let (logps, _) = score(&policy, &chosen, &rejected)?;
        let mean = loss.forward(&logps, &ref_logps, tokens)?.mean(Kind::Float);
        if step % 10 == 0 {
            let rewards = loss.reward_tensors(&logps, &ref_logps)?;
            let number = |tensor: &Tensor| tensor.mean(Kind::Float).double_value(&[]);
            let (margin, accuracy) = (number(&rewards.margins()), number(&rewards.accuracies()));
            println!(
                "step {step:>2}: loss {:.4}, reward margin {margin:.3}, accuracy {accuracy:.2}",
                number(&mean)
            );
        }
        mean.backward();
        tch::no_grad(|| policy -= policy.grad() * 20.0);
        policy.zero_grad();
    }
    Ok(())
}

/// Returns the summed log-probabilities and the token counts of both responses.
fn score(
    model: &Tensor,
    chosen: &Tensor,
    rejected: &Tensor,
) -> Result<(PairLogpTensors, [Vec<u32>; 2]), HeadError> {
    let response = chosen.ones_like().to_kind(Kind::Bool);
    let _ = response.i((.., 0)).fill_(0);
    let of = |ids: &Tensor| {
        let logits = model.index_select(0, &ids.reshape([-1])).view([PAIRS, LENGTH, VOCAB]);
        sequence_logps(&logits, ids, &response)
    };
    let (chosen, rejected) = (of(chosen)?, of(rejected)?);
    let logps = PairLogpTensors { chosen: chosen.sums, rejected: rejected.sums };
    Ok((logps, [chosen.tokens, rejected.tokens]))
}
