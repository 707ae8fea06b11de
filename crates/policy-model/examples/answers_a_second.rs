//! How fast a policy of the sandbox's size answers, and whether bfloat16 pays on this machine.
//!
//! ```text
//! cargo run -p policy-model --example answers_a_second [threads]
//! ```

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "an example's output is its purpose")]

use std::time::Instant;

use policy_model::{
    GenerationOptions, GenerationRequest, ModelConfig, Policy, PolicyError, Rows, Sampling, native_bf16,
};
use rand::RngExt;
use seeds::Seeds;
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), PolicyError> {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2);
    tch::set_num_threads(threads);
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 176,
        "num_hidden_layers": 2, "num_attention_heads": 4, "tie_word_embeddings": true,
    }))?;
    let seeds = Seeds::new(0);
    let policy = Policy::initialize(config, &seeds, Kind::Float, Device::Cpu)?;

    let mut lengths = seeds.stream("prompts");
    let requests: Vec<GenerationRequest> = (0..1_000)
        .map(|index| GenerationRequest {
            prompt: (0..lengths.random_range(20..=40)).map(|_| lengths.random_range(3..512)).collect(),
            sampling: Sampling {
                temperature: 0.7,
                top_k: None,
                top_p: 1.0,
                max_new_tokens: 48,
                stop_tokens: vec![2],
            },
            stream: seeds.indexed("answers", index),
        })
        .collect();
    for max_batch in [64, 256, 1_000] {
        let start = Instant::now();
        let tokens: usize = policy
            .generate(&requests, &GenerationOptions { max_batch })?
            .iter()
            .map(|g| g.tokens.len())
            .sum();
        let seconds = start.elapsed().as_secs_f64();
        println!("1000 prompts, batches of {max_batch}: {tokens} tokens in {seconds:.2} s");
    }
    step(&policy);
    products();
    Ok(())
}

/// Forward and backward of four rows of 64 tokens, all of them scored.
fn step(policy: &Policy) {
    let row: Vec<u32> = (3..67).collect();
    let rows = Rows::causal(&[&row, &row, &row, &row], Device::Cpu);
    let parameters: Vec<Tensor> =
        policy.parameters().iter().map(|(_, t)| t.set_requires_grad(true)).collect();
    let run = || {
        let hidden = policy.hidden_states(&rows).expect("a forward pass").view([256, -1]);
        let loss = -policy.token_logps(&hidden, &rows.ids.view(-1)).mean(Kind::Float);
        Tensor::run_backward(&[loss], &parameters, false, false)
    };
    (0..20).for_each(|_| drop(run()));
    let start = Instant::now();
    (0..200).for_each(|_| drop(run()));
    println!("forward and backward of 4 x 64 tokens: {:.2} ms", start.elapsed().as_secs_f64() * 5.0);
}

/// The feed-forward product of a 135M model over 512 tokens.
fn products() {
    println!("native bfloat16: {}", native_bf16(Device::Cpu));
    for kind in [Kind::Float, Kind::BFloat16] {
        let (x, w) =
            (Tensor::ones([512, 576], (kind, Device::Cpu)), Tensor::ones([1536, 576], (kind, Device::Cpu)));
        let run = || drop(x.linear(&w, None::<&Tensor>));
        (0..3).for_each(|_| run());
        let start = Instant::now();
        (0..20).for_each(|_| run());
        let gflops = 20.0 * 2.0 * 512.0 * 576.0 * 1536.0 / start.elapsed().as_secs_f64() / 1e9;
        println!("{kind:?}: {gflops:.0} GFLOP/s");
    }
}
