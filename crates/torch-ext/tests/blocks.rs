//! Fused blocks against the composed kernels: bitwise identical forward passes, and gradients that are equal up to rounding.

use tch::{Device, Kind, Tensor};
use torch_ext::{
    AttentionBlock, GatedBlock, SharedPrefixRows, TorchExtError, attention_block, gated_block,
    gather_gradients, rms_norm, rotate, shared_prefix_attention, swiglu,
};

const EPS: f64 = 1e-5;
/// Relative to the largest number of a gradient: another order of sums, and in bf16 one rounding less.
const TOLERANCES: [(Kind, f64); 2] = [(Kind::Float, 2e-6), (Kind::BFloat16, 2e-2)];
/// Prefix and continuations of two rows, and a row without continuations.
const ROWS: [(usize, &[usize]); 3] = [(5, &[3, 70]), (1, &[2]), (9, &[])];

/// Reproducible numbers in (-1, 1) without a pattern.
fn numbers(shape: &[i64], seed: f64, kind: Kind) -> Tensor {
    let at = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu)) + seed;
    ((at * 12.9898).sin() * 43_758.545_3).frac().view(shape).to_kind(kind)
}

/// Leaves of these shapes, scaled so that products are about as large as their operands.
fn leaves(shapes: &[&[i64]], kind: Kind) -> Vec<Tensor> {
    let leaf = |(seed, shape): (usize, &&[i64])| {
        let scale = if shape.len() > 1 { (shape[1] as f64).powf(-0.5) * 2.0 } else { 1.0 };
        (numbers(shape, 0.1 + seed as f64, kind) * scale).detach().set_requires_grad(true)
    };
    shapes.iter().enumerate().map(leaf).collect()
}

/// The gradients of a weighted sum of the result.
fn gradients(result: &Tensor, leaves: &[Tensor]) -> Vec<Tensor> {
    let root = (result * numbers(&result.size(), 0.7, result.kind())).sum(Kind::Float);
    Tensor::run_backward(&[root], leaves, false, false)
}

fn assert_near(what: &str, kind: Kind, tolerance: f64, found: &[Tensor], expected: &[Tensor]) {
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!((found.size(), found.kind()), (expected.size(), kind), "{what}: gradient {at}");
        let largest = expected.abs().max().double_value(&[]);
        let apart = (found - expected).abs().max().double_value(&[]) / largest;
        assert!(largest > 0.0 && apart <= tolerance, "{what}: gradient {at} of {kind:?} is {apart} apart");
    }
}

fn composed_gated(leaves: &[Tensor]) -> Tensor {
    let [x, norm, gate_proj, up_proj, down_proj] = leaves else { unreachable!() };
    let normed = rms_norm(x, norm, EPS).unwrap().unwrap();
    let linear = |x: &Tensor, weight: &Tensor| x.linear(weight, None::<&Tensor>);
    let gated = swiglu(&linear(&normed, gate_proj), &linear(&normed, up_proj)).unwrap().unwrap();
    x + linear(&gated, down_proj)
}

fn fused_gated(leaves: &[Tensor]) -> Result<Option<Tensor>, TorchExtError> {
    let [x, post_attention_layernorm, gate_proj, up_proj, down_proj] = leaves else { unreachable!() };
    gated_block(x, &GatedBlock { post_attention_layernorm, eps: EPS, gate_proj, up_proj, down_proj })
}

#[test]
fn a_gated_block_matches_the_composed_kernels() {
    for (kind, tolerance) in TOLERANCES {
        for tokens in [1, 83] {
            let leaves = leaves(&[&[tokens, 64], &[64], &[176, 64], &[176, 64], &[64, 176]], kind);
            let (found, expected) = (fused_gated(&leaves).unwrap().unwrap(), composed_gated(&leaves));
            assert!(found.equal(&expected), "{tokens} tokens of {kind:?}");
            assert_near(
                "gated",
                kind,
                tolerance,
                &gradients(&found, &leaves),
                &gradients(&expected, &leaves),
            );
        }
    }
}

/// Cosines and sines of a rotation per token.
fn tables(tokens: i64, dim: i64, kind: Kind) -> (Tensor, Tensor) {
    let half = numbers(&[tokens, 1, dim / 2], 0.3, Kind::Double) * 3.0;
    let (cos, sin) = (half.cos(), half.sin());
    (Tensor::cat(&[&cos, &cos], 2).to_kind(kind), Tensor::cat(&[&-&sin, &sin], 2).to_kind(kind))
}

fn composed_attention(leaves: &[Tensor], rows: &SharedPrefixRows, dim: i64) -> Tensor {
    let [x, norm, q_proj, k_proj, v_proj, o_proj, biases @ ..] = leaves else { unreachable!() };
    let (cos, sin) = tables(x.size()[0], dim, x.kind());
    let normed = rms_norm(x, norm, EPS).unwrap().unwrap();
    let heads =
        |weight: &Tensor, at: usize| normed.linear(weight, biases.get(at)).view([x.size()[0], -1, dim]);
    let rotated = |heads: &Tensor| rotate(heads, &cos, &sin).unwrap().unwrap();
    let attended = shared_prefix_attention(
        &rotated(&heads(q_proj, 0)),
        &rotated(&heads(k_proj, 1)),
        &heads(v_proj, 2),
        rows,
    );
    x + attended.unwrap().unwrap().view([x.size()[0], -1]).linear(o_proj, None::<&Tensor>)
}

fn fused_attention(
    leaves: &[Tensor],
    rows: &SharedPrefixRows,
    dim: i64,
) -> Result<Option<Tensor>, TorchExtError> {
    let [x, input_layernorm, q_proj, k_proj, v_proj, o_proj, biases @ ..] = leaves else { unreachable!() };
    let biases = match biases {
        [q, k, v] => Some([q, k, v]),
        _ => None,
    };
    let weights = AttentionBlock { input_layernorm, eps: EPS, q_proj, k_proj, v_proj, o_proj, biases };
    let (cos, sin) = tables(x.size()[0], dim, x.kind());
    attention_block(x, &weights, (&cos, &sin), rows)
}

/// Four query heads and two key heads, wider than a quarter of the block.
const SHAPES: [&[i64]; 9] =
    [&[90, 64], &[64], &[128, 64], &[64, 64], &[64, 64], &[64, 128], &[128], &[64], &[64]];

#[test]
fn an_attention_block_matches_the_composed_kernels() {
    let rows = SharedPrefixRows::new(ROWS);
    for (kind, tolerance) in TOLERANCES {
        for count in [6, 9] {
            let leaves = leaves(&SHAPES[..count], kind);
            let found = fused_attention(&leaves, &rows, 32).unwrap().unwrap();
            let expected = composed_attention(&leaves, &rows, 32);
            assert!(found.equal(&expected), "{count} operands of {kind:?}");
            let what = if count == 6 { "attention" } else { "attention with biases" };
            assert_near(what, kind, tolerance, &gradients(&found, &leaves), &gradients(&expected, &leaves));
        }
    }
}

#[test]
fn blocks_add_their_gradients_to_sums() {
    let rows = SharedPrefixRows::new(ROWS);
    let gated: &[&[i64]] = &[&[90, 64], &[64], &[176, 64], &[176, 64], &[64, 176]];
    for (kind, tolerance) in TOLERANCES {
        for shapes in [gated, &SHAPES[..6], &SHAPES] {
            let leaves = leaves(shapes, kind);
            let block = || match shapes.len() {
                5 => fused_gated(&leaves).unwrap().unwrap(),
                _ => fused_attention(&leaves, &rows, 32).unwrap().unwrap(),
            };
            let (output, others) = (block(), leaves[1..].iter().collect::<Vec<_>>());
            let gradient = numbers(&output.size(), 0.7, kind);
            // Twice, so that the second pass adds to the first.
            let mut sums: Vec<Tensor> =
                others.iter().map(|leaf| Tensor::zeros(leaf.size(), (Kind::Float, Device::Cpu))).collect();
            for output in [output, block()] {
                let grad_x = gather_gradients(&output, &gradient, &leaves[0], &others, &mut sums).unwrap();
                assert!(grad_x.unwrap().equal(&gradients(&block(), &leaves)[0]), "{kind:?}");
            }
            let expected: Vec<Tensor> = gradients(&block(), &leaves)[1..]
                .iter()
                .map(|gradient| gradient.to_kind(Kind::Float) * 2.0)
                .collect();
            assert_near("gathered", Kind::Float, tolerance, &sums, &expected);
        }
    }
}

#[test]
fn frozen_operands_change_no_gradient() {
    let rows = SharedPrefixRows::new(ROWS);
    let all = leaves(&SHAPES[..6], Kind::Float);
    let expected = gradients(&fused_attention(&all, &rows, 32).unwrap().unwrap(), &all);
    let frozen: Vec<Tensor> = all.iter().map(Tensor::detach).collect();
    for at in 0..all.len() {
        let mut leaves: Vec<Tensor> = frozen.iter().map(Tensor::shallow_clone).collect();
        leaves[at] = all[at].detach().set_requires_grad(true);
        let found = gradients(&fused_attention(&leaves, &rows, 32).unwrap().unwrap(), &leaves[at..=at]);
        assert!(found[0].equal(&expected[at]), "gradient {at} alone");
    }
    assert!(!fused_attention(&frozen, &rows, 32).unwrap().unwrap().requires_grad());
    let without_graph = tch::no_grad(|| fused_attention(&all, &rows, 32).unwrap().unwrap());
    assert!(
        !without_graph.requires_grad()
            && without_graph.equal(&fused_attention(&frozen, &rows, 32).unwrap().unwrap())
    );
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let rows = SharedPrefixRows::new(ROWS);
    let good = leaves(&SHAPES, Kind::Float);
    let with = |at: usize, other: Tensor| {
        let mut leaves: Vec<Tensor> = good.iter().map(Tensor::shallow_clone).collect();
        leaves[at] = other;
        fused_attention(&leaves, &rows, 32).unwrap_err().to_string()
    };
    let names = [
        "x",
        "the norm",
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "bias of q_proj",
        "bias of k_proj",
        "bias of v_proj",
    ];
    for (at, name) in names.into_iter().enumerate() {
        let shape: Vec<i64> = SHAPES[at].iter().map(|&size| size + 8).collect();
        let complaints = [
            with(at, Tensor::zeros(shape, (Kind::Float, Device::Cpu))),
            with(at, good[at].to_kind(Kind::Half)),
        ];
        // With an x of another kind, the error names the second operand.
        for complaint in complaints.iter().take(if at == 0 { 1 } else { 2 }) {
            assert!(complaint.contains(name), "{name}: {complaint}");
        }
    }
    let mut gated = leaves(&[&[4, 64], &[64], &[176, 64], &[176, 64], &[64, 176]], Kind::Float);
    gated[4] = gated[4].t_copy();
    assert!(fused_gated(&gated).unwrap_err().to_string().contains("down_proj"));
}

#[test]
fn operands_without_a_kernel_are_unsupported() {
    let rows = SharedPrefixRows::new(ROWS);
    let mut leaves = leaves(&SHAPES[..6], Kind::Float);
    leaves[3] = leaves[3].t_copy().contiguous().t_();
    assert!(fused_attention(&leaves, &rows, 32).unwrap().is_none(), "a transposed weight");
    let half: Vec<Tensor> = leaves.iter().map(|leaf| leaf.to_kind(Kind::Half).contiguous()).collect();
    assert!(fused_attention(&half, &rows, 32).unwrap().is_none(), "another kind");
    let float: Vec<Tensor> = leaves.iter().map(Tensor::contiguous).collect();
    assert!(fused_attention(&float, &rows, 8).unwrap().is_none(), "narrow heads");
    assert!(fused_attention(&float, &rows, 32).unwrap().is_some());
}
