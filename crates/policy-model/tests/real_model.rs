//! Compares the real 135M model in fp32 with transformers; runs if `PREF_REAL_MODEL` names its folder.

use std::path::Path;

use policy_model::{AttentionMask, Finish, GenerationOptions, GenerationRequest, Policy, Rows, Sampling};
use seeds::Seeds;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use test_support::SEQUENCE_LOGP_NATS;

/// The recording of `fixtures/make_real.py`.
#[derive(Deserialize)]
struct Expected {
    pairs: Vec<Pair>,
    greedy: Vec<Vec<u32>>,
    max_new_tokens: usize,
    eos_token_id: u32,
}

#[derive(Deserialize)]
struct Pair {
    prompt: Vec<u32>,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
    chosen_logp: f64,
    rejected_logp: f64,
}

fn expected() -> Expected {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/real_135m.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn long(ids: &[u32]) -> Vec<i64> {
    ids.iter().map(|&id| i64::from(id)).collect()
}

fn row(values: Vec<i64>) -> Tensor {
    Tensor::from_slice(&values).unsqueeze(0)
}

/// Log-probabilities of both sides from one row `[prompt | chosen | rejected]`.
fn shared_prompt(policy: &Policy, pair: &Pair) -> [f64; 2] {
    let (p, c, r) = (pair.prompt.len() as i64, pair.chosen.len() as i64, pair.rejected.len() as i64);
    let rows = Rows {
        ids: row([long(&pair.prompt), long(&pair.chosen), long(&pair.rejected)].concat()),
        positions: row((0..p + c).chain(p..p + r).collect()),
        mask: AttentionMask::SharedPrefix(row([
            vec![0; p as usize],
            vec![1; c as usize],
            vec![2; r as usize],
        ]
        .concat())),
        dropout: None,
        routing: None,
    };
    let hidden = policy.hidden_states(&rows).unwrap().get(0);
    // The last token of the prompt predicts the first token of each response.
    let before: Vec<i64> = (p - 1..p + c - 1).chain([p - 1]).chain(p + c..p + c + r - 1).collect();
    let hidden = hidden.index_select(0, &Tensor::from_slice(&before));
    let sequence = Tensor::from_slice(&[vec![0_i64; c as usize], vec![1; r as usize]].concat());
    let sums = policy.sequence_logps(&hidden, &rows.ids.get(0).narrow(0, p, c + r), &sequence, 2);
    [sums.double_value(&[0]), sums.double_value(&[1])]
}

fn causal(policy: &Policy, prompt: &[u32], completion: &[u32]) -> f64 {
    let whole = [prompt, completion].concat();
    let rows = Rows::causal(&[&whole], Device::Cpu);
    let (p, c) = (prompt.len() as i64, completion.len() as i64);
    let hidden = policy.hidden_states(&rows).unwrap().get(0).narrow(0, p - 1, c);
    let logps = policy.token_logps(&hidden, &rows.ids.get(0).narrow(0, p, c));
    logps.sum(Kind::Double).double_value(&[])
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn sequence_logps_and_greedy_continuations_match_transformers() {
    let Some(dir) = test_support::real_model("sequence_logps_and_greedy_continuations_match_transformers")
    else {
        return;
    };
    let expected = expected();
    let policy = Policy::load(&dir, Kind::Float, Device::Cpu).unwrap();
    let mut largest = 0.0_f64;
    let mut check = |what: &str, index: usize, found: f64, expected: f64| {
        let difference = (found - expected).abs();
        largest = largest.max(difference);
        assert!(difference < SEQUENCE_LOGP_NATS, "{what} of pair {index}: {found}, transformers {expected}");
    };
    tch::no_grad(|| {
        for (index, pair) in expected.pairs.iter().enumerate() {
            let [chosen, rejected] = shared_prompt(&policy, pair);
            check("chosen", index, chosen, pair.chosen_logp);
            check("rejected", index, rejected, pair.rejected_logp);
        }
        for (index, pair) in expected.pairs.iter().enumerate().take(4) {
            check("chosen alone", index, causal(&policy, &pair.prompt, &pair.chosen), pair.chosen_logp);
        }
    });
    println!("largest difference of a sequence: {largest:.2e} nats");

    let requests = expected.pairs.iter().zip(&expected.greedy).map(|(pair, _)| GenerationRequest {
        prompt: pair.prompt.clone(),
        sampling: Sampling::greedy(expected.max_new_tokens, vec![expected.eos_token_id]),
        stream: Seeds::new(0).stream("unused"),
    });
    let requests: Vec<_> = requests.collect();
    let generations = policy.generate(&requests, &GenerationOptions { max_batch: 8 }).unwrap();
    for (index, (generation, expected)) in generations.iter().zip(&expected.greedy).enumerate() {
        let mut found = generation.tokens.clone();
        if let Finish::Stop(token) = generation.finish {
            found.push(token);
        }
        assert_eq!(&found, expected, "greedy continuation of prompt {index}");
    }
}
