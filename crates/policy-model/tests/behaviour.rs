//! Properties for any weights: shared prefixes, batching, gradients, saved folders, and errors of kernels.

use std::path::{Path, PathBuf};

use policy_model::{
    AttentionMask, Generation, GenerationOptions, GenerationRequest, ModelConfig, PackedRow, PackedRows,
    Policy, PolicyError, Rows, Sampling,
};
use rand::RngExt;
use seeds::Seeds;
use tch::{Device, Kind, Tensor};
use test_support::LOGITS_FP32;

const MODELS: [&str; 5] = ["llama", "llama-old", "mistral", "qwen2", "qwen3"];
/// Answers of different batch sizes may differ only where the margin of the decision is below this.
const DECIDING_MARGIN: f32 = 1e-4;

fn load(name: &str) -> Policy {
    // Tiny matrices do not profit from threads, and tests run in parallel.
    tch::set_num_threads(1);
    Policy::load(&fixture(name), Kind::Float, Device::Cpu).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn random_ids(stream: &mut seeds::Stream, policy: &Policy, length: usize) -> Vec<u32> {
    (0..length).map(|_| stream.random_range(0..policy.config().vocab_size as u32)).collect()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

fn ids(rows: &[Vec<i64>]) -> Tensor {
    Tensor::from_slice(&rows.concat()).view([rows.len() as i64, -1])
}

#[test]
fn a_shared_prefix_matches_separate_rows() {
    let (prompt, chosen, rejected) = (9, 7, 4);
    for name in MODELS {
        let policy = load(name);
        let mut stream = Seeds::new(1).stream(name);
        let [prompt_ids, chosen_ids, rejected_ids] =
            [prompt, chosen, rejected].map(|length| random_ids(&mut stream, &policy, length));
        let separate = |completion: &[u32]| {
            let row = [prompt_ids.as_slice(), completion].concat();
            policy.hidden_states(&Rows::causal(&[&row], Device::Cpu)).unwrap().get(0)
        };
        let (with_chosen, with_rejected) = (separate(&chosen_ids), separate(&rejected_ids));

        let long = |ids: &[u32]| ids.iter().map(|&id| i64::from(id)).collect::<Vec<i64>>();
        // Three columns of padding, which must not affect earlier tokens.
        let row = [long(&prompt_ids), long(&chosen_ids), long(&rejected_ids), vec![0; 3]].concat();
        let span =
            |start: usize, length: usize| (start as i64..(start + length) as i64).collect::<Vec<i64>>();
        let positions = [span(0, prompt + chosen), span(prompt, rejected), vec![0; 3]].concat();
        let segments = [vec![0; prompt], vec![1; chosen], vec![2; rejected], vec![3; 3]].concat();
        let rows = Rows {
            ids: ids(&[row]),
            positions: ids(&[positions]),
            mask: AttentionMask::SharedPrefix(ids(&[segments])),
            dropout: None,
            routing: None,
        };
        let shared = policy.hidden_states(&rows).unwrap().get(0);

        let [prompt, chosen, rejected] = [prompt, chosen, rejected].map(|length| length as i64);
        let first = largest_difference(&shared.narrow(0, 0, prompt + chosen), &with_chosen);
        let tail = with_rejected.narrow(0, prompt, rejected);
        let second = largest_difference(&shared.narrow(0, prompt + chosen, rejected), &tail);
        assert!(first < LOGITS_FP32 && second < LOGITS_FP32, "{name}: {first}, {second}");
        // The check can fail: with a causal mask, the rejected response sees the chosen one.
        let rows = Rows { mask: AttentionMask::Causal, ..rows };
        let mixed = policy.hidden_states(&rows).unwrap().get(0).narrow(0, prompt + chosen, rejected);
        assert!(largest_difference(&mixed, &tail) > 100.0 * LOGITS_FP32, "{name}");
    }
}

#[test]
fn selected_states_match_all_states() {
    let on_cpu = (Kind::Int64, Device::Cpu);
    let tokens = Tensor::arange(10, on_cpu) + 5;
    // Reordered and with a repetition, as for the last token of a shared prompt.
    let selected = Tensor::from_slice(&[9i64, 3, 2, 3, 6]);
    for name in MODELS {
        let policy = load(name);
        let positions = Tensor::from_slice(&[0i64, 1, 2, 3, 4, 5, 6, 4, 5, 6]);
        let rows = vec![PackedRow { prefix: 4, continuations: vec![3, 3] }];
        let packed =
            PackedRows { ids: tokens.shallow_clone(), positions, rows, dropout: None, routing: None };
        let grid = |values: &Tensor| values.view([2, 5]);
        let padded = Rows {
            ids: grid(&tokens),
            positions: grid(&Tensor::arange(10, on_cpu).remainder(5)),
            mask: AttentionMask::Causal,
            dropout: None,
            routing: None,
        };
        let leaf = || policy.embed(&tokens).detach().set_requires_grad(true);
        let slopes = |states: &Tensor, leaf: &Tensor| {
            // Different weights, so that a permutation changes the result.
            let weights = Tensor::arange(states.numel() as i64, (Kind::Float, Device::Cpu)).view_as(states);
            Tensor::run_backward(&[(states * weights.sin()).sum(Kind::Float)], &[leaf], false, false)
                .remove(0)
        };
        for is_packed in [true, false] {
            let states = |embedded: &Tensor, selected: Option<&Tensor>| {
                if is_packed {
                    policy.packed_hidden_states(embedded, &packed, selected).unwrap()
                } else {
                    policy.padded_hidden_states(embedded, &padded, selected).unwrap()
                }
            };
            let leaves = [leaf(), leaf()];
            let some = states(&leaves[0], Some(&selected));
            let all = states(&leaves[1], None).index_select(0, &selected);
            assert_eq!(some.size(), [5, policy.config().hidden_size as i64], "{name}");
            let apart = largest_difference(&some, &all);
            let [some, all] = [slopes(&some, &leaves[0]), slopes(&all, &leaves[1])];
            let slopes_apart = largest_difference(&some, &all) / all.abs().max().double_value(&[]);
            assert!(apart < LOGITS_FP32 && slopes_apart < LOGITS_FP32, "{name}: {apart}, {slopes_apart}");
        }
    }
}

#[test]
fn answers_do_not_depend_on_the_batch() {
    let (mut sequences, mut divergences) = (0, 0);
    for name in MODELS {
        let policy = load(name);
        let mut stream = Seeds::new(2).stream(name);
        let requests: Vec<GenerationRequest> = (0..64)
            .map(|index| GenerationRequest {
                prompt: {
                    let length = stream.random_range(1..20);
                    random_ids(&mut stream, &policy, length)
                },
                sampling: Sampling {
                    temperature: [0.0, 0.7, 1.0, 1.3][index % 4],
                    top_k: [None, Some(20)][index / 4 % 2],
                    top_p: [1.0, 0.9][index / 8 % 2],
                    max_new_tokens: 1 + index % 23,
                    stop_tokens: vec![2, 3],
                },
                stream: Seeds::new(2).indexed("answers", index as u64),
            })
            .collect();
        let run = |max_batch| policy.generate(&requests, &GenerationOptions { max_batch }).unwrap();
        let alone = run(1);
        assert!(alone.iter().any(|g| g.tokens.len() > 10), "{name}: all answers are short");
        for max_batch in [3, 8, 32] {
            for (index, (a, b)) in alone.iter().zip(&run(max_batch)).enumerate() {
                sequences += 1;
                if let Some(margin) = divergence(a, b) {
                    divergences += 1;
                    assert!(
                        margin < DECIDING_MARGIN,
                        "{name}, request {index}: batches of 1 and {max_batch} differ at a margin of {margin}"
                    );
                }
            }
        }
        let reversed: Vec<_> = requests[..16].iter().rev().cloned().collect();
        let reversed = policy.generate(&reversed, &GenerationOptions { max_batch: 1 }).unwrap();
        assert!(
            alone[..16].iter().eq(reversed.iter().rev()),
            "{name}: results depend on the order of requests"
        );
    }
    println!("{divergences} of {sequences} answers differ between batch sizes, each at a small margin");
    // Rounding explains less than one difference in fifty answers.
    assert!(divergences * 50 <= sequences, "{divergences} of {sequences} differ");
}

/// The margin at the first decision in which two answers differ.
fn divergence(a: &Generation, b: &Generation) -> Option<f32> {
    if a.tokens == b.tokens && a.finish == b.finish {
        return None;
    }
    let same = a.tokens.iter().zip(&b.tokens).take_while(|(a, b)| a == b).count();
    Some(a.margins[same].min(b.margins[same]))
}

#[test]
fn parameters_may_be_views_of_a_flat_buffer() {
    let original = load("qwen2");
    let config = original.config().clone();
    let flat = Tensor::zeros([config.parameter_count() as i64], (Kind::Float, Device::Cpu));
    let mut offset = 0;
    let views = original.parameters().iter().map(|(name, tensor)| {
        let length = tensor.numel() as i64;
        let mut view = flat.narrow(0, offset, length).view(tensor.size().as_slice());
        view.copy_(tensor);
        offset += length;
        (name.clone(), view.set_requires_grad(true))
    });
    let policy = Policy::from_parameters(config, views.collect()).unwrap();
    let rows = Rows::causal(&[&[5, 6, 7, 8, 9, 10, 11, 12]], Device::Cpu);
    let loss = |policy: &Policy| {
        let hidden = policy.hidden_states(&rows).unwrap().get(0).narrow(0, 0, 7);
        let sequence = Tensor::zeros([7], (Kind::Int64, Device::Cpu));
        -policy.sequence_logps(&hidden, &rows.ids.get(0).narrow(0, 1, 7), &sequence, 1).sum(Kind::Double)
    };
    let parameters: Vec<&Tensor> = policy.parameters().iter().map(|(_, tensor)| tensor).collect();
    let gradients = Tensor::run_backward(&[loss(&policy)], &parameters, false, false);

    // Finite differences along the gradient, through the shared buffer.
    let gradient = Tensor::cat(&gradients.iter().map(|g| g.reshape(-1)).collect::<Vec<_>>(), 0);
    let slope = gradient.norm().double_value(&[]);
    let step = 1e-3;
    let at = |distance: f64| {
        tch::no_grad(|| {
            let _ = flat.shallow_clone().g_add_(&(&gradient * (distance / slope)));
            loss(&policy).double_value(&[])
        })
    };
    let (ahead, behind) = (at(step), at(-2.0 * step));
    let measured = (ahead - behind) / (2.0 * step);
    assert!((measured / slope - 1.0).abs() < 1e-2, "slope {slope}, measured {measured}");
}

#[test]
fn chunked_log_probabilities_match_unchunked_ones() {
    // A row of this vocabulary is 64 KiB, so that 600 rows are several chunks.
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "llama", "vocab_size": 16_384, "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 1, "tie_word_embeddings": true,
    }))
    .unwrap();
    let policy = Policy::initialize(config, &Seeds::new(0), Kind::Float, Device::Cpu).unwrap();
    let mut stream = Seeds::new(0).stream("hidden");
    let values: Vec<f32> = (0..600 * 8).map(|_| stream.random::<f32>() * 4.0 - 2.0).collect();
    let hidden = Tensor::from_slice(&values).view([600, 8]);
    let targets = Tensor::arange(600, (Kind::Int64, Device::Cpu)) * 27;
    let chunked = tch::no_grad(|| policy.token_logps(&hidden, &targets));
    let tracked = policy.token_logps(&hidden.copy().set_requires_grad(true), &targets);
    assert!(tracked.requires_grad());
    assert!(largest_difference(&chunked, &tracked.detach()) < LOGITS_FP32);
}

#[test]
fn a_saved_folder_reads_back_and_keeps_unknown_keys() {
    let out = tempfile::tempdir().unwrap();
    for name in MODELS {
        let policy = load(name);
        let dir = out.path().join(name);
        for _ in 0..2 {
            policy.save(&dir, Kind::Float, Some(&fixture(name))).unwrap();
        }
        let again = Policy::load(&dir, Kind::Float, Device::Cpu).unwrap();
        assert_eq!(again.parameters().len(), policy.parameters().len());
        for ((name, a), (other, b)) in policy.parameters().iter().zip(again.parameters()) {
            assert!(name == other && a.equal(b), "{name}");
        }
        let key = if policy.config().raw().contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        assert_eq!(again.config().raw()[key], "float32");
        assert_eq!(again.config().raw()["use_cache"], true, "an unknown key");
        let generation = std::fs::read(dir.join("generation_config.json")).unwrap();
        assert_eq!(generation, std::fs::read(fixture(name).join("generation_config.json")).unwrap());
    }
    let left: Vec<_> = std::fs::read_dir(out.path()).unwrap().collect();
    assert_eq!(left.len(), MODELS.len(), "temporary folders are left: {left:?}");
}

#[test]
fn initial_weights_follow_their_seed_and_deviation() {
    let config = load("llama-old").config().clone();
    let make =
        |seed| Policy::initialize(config.clone(), &Seeds::new(seed), Kind::Float, Device::Cpu).unwrap();
    let (a, b, c) = (make(1), make(1), make(2));
    for (((name, a), (_, b)), (_, c)) in a.parameters().iter().zip(b.parameters()).zip(c.parameters()) {
        assert!(a.equal(b), "{name}: the same seed gives the same weights");
        let deviation = a.std(true).double_value(&[]);
        let expected = config.initializer_range;
        match (name.ends_with("bias"), a.dim()) {
            (true, _) => assert!(a.eq(0).all().int64_value(&[]) == 1, "{name}"),
            (false, 1) => assert!(a.eq(1).all().int64_value(&[]) == 1, "{name}"),
            _ => {
                assert!(!a.equal(c), "{name}: another seed gives other weights");
                // Six standard errors of a deviation from at least 1,536 values.
                assert!((deviation / expected - 1.0).abs() < 6.0 / (2.0 * a.numel() as f64).sqrt(), "{name}");
            }
        }
    }
    assert_eq!(config.parameter_count(), a.parameters().iter().map(|(_, t)| t.numel() as u64).sum::<u64>());
}

#[test]
fn bfloat16_is_close_to_fp32() {
    for name in MODELS {
        let (full, half) = (load(name), Policy::load(&fixture(name), Kind::BFloat16, Device::Cpu).unwrap());
        let mut stream = Seeds::new(4).stream(name);
        let row = random_ids(&mut stream, &full, 16);
        let rows = Rows::causal(&[&row], Device::Cpu);
        let targets = rows.ids.get(0).narrow(0, 1, 15);
        let logps = |policy: &Policy| {
            policy.token_logps(&policy.hidden_states(&rows).unwrap().get(0).narrow(0, 0, 15), &targets)
        };
        let (full, half) = (logps(&full), logps(&half));
        assert_eq!(half.kind(), Kind::Float);
        // bfloat16 has eight bits; two layers cause errors of a few ulps of logits around ten.
        let difference = largest_difference(&full, &half);
        assert!(difference > 0.0 && difference < 0.5, "{name}: {difference}");
    }
}

#[test]
fn bfloat16_weights_are_read_without_loss() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, policy) = (folder.path().join("model"), load("llama"));
    policy.save(&dir, Kind::BFloat16, None).unwrap();
    assert_eq!(Policy::stored_kind(&dir).unwrap(), Some(Kind::BFloat16));
    let [narrow, wide] =
        [Kind::BFloat16, Kind::Float].map(|kind| Policy::load(&dir, kind, Device::Cpu).unwrap());
    for ((name, narrow), (_, wide)) in narrow.parameters().iter().zip(wide.parameters()) {
        assert_eq!(narrow.to_kind(Kind::Float), *wide, "{name}");
    }
    let path = dir.join("model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    tensors[0].1 = tensors[0].1.to_kind(Kind::Float);
    Tensor::write_safetensors(&tensors, &path).unwrap();
    assert_eq!(Policy::stored_kind(&dir).unwrap(), None);
}

#[test]
fn an_error_of_a_kernel_is_returned() {
    let rows = Rows::causal(&[&[5, 6, 7, 8]], Device::Cpu);
    let request = GenerationRequest {
        prompt: vec![5, 6, 7],
        sampling: Sampling::greedy(3, Vec::new()),
        stream: Seeds::new(0).stream("unused"),
    };
    for norm in ["model.layers.0.input_layernorm.weight", "model.norm.weight"] {
        // Qwen3 composes its attention of single kernels, Llama uses the fused block.
        for name in ["qwen3", "llama"] {
            let policy = load(name);
            let (_, weight) = policy.parameters().iter().find(|(other, _)| other == norm).unwrap();
            // libtorch's composition accepts the mixed kinds, and would hide the error.
            weight.shallow_clone().set_data(&weight.to_kind(Kind::BFloat16));
            let error = policy.hidden_states(&rows).unwrap_err();
            assert!(matches!(error, PolicyError::Kernel(_)), "{name}, {norm}: {error}");
            let answers =
                policy.generate(std::slice::from_ref(&request), &GenerationOptions { max_batch: 1 });
            assert!(matches!(answers, Err(PolicyError::Kernel(_))), "{name}, {norm}: {answers:?}");
        }
    }
}
