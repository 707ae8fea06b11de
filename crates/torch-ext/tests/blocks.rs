//! Blocks against the composition of their parts: the same bits forwards, the same gradients but for rounding.

use tch::{Device, Kind, Tensor};
use torch_ext::{
    AttentionBlock, GatedBlock, TokenTrees, TorchExtError, attention_block, gated_block, gather_gradients,
    rms_norm, rotate, swiglu, tree_attention,
};

const EPS: f64 = 1e-5;
/// Of the largest number in a gradient: sums in another order, and in bf16 a rounding less.
const TOLERANCES: [(Kind, f64); 2] = [(Kind::Float, 2e-6), (Kind::BFloat16, 2e-2)];
/// Trunk and branches of two rows and of one without branches.
const ROWS: [(usize, &[usize]); 3] = [(5, &[3, 70]), (1, &[2]), (9, &[])];

/// Numbers in (-1, 1) without a pattern, the same at every run.
fn numbers(shape: &[i64], seed: f64, kind: Kind) -> Tensor {
    let at = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu)) + seed;
    ((at * 12.9898).sin() * 43_758.545_3).frac().view(shape).to_kind(kind)
}

/// Leaves of these shapes, scaled so that products stay about as large as what goes in.
fn leaves(shapes: &[&[i64]], kind: Kind) -> Vec<Tensor> {
    let leaf = |(seed, shape): (usize, &&[i64])| {
        let scale = if shape.len() > 1 { (shape[1] as f64).powf(-0.5) * 2.0 } else { 1.0 };
        (numbers(shape, 0.1 + seed as f64, kind) * scale).detach().set_requires_grad(true)
    };
    shapes.iter().enumerate().map(leaf).collect()
}

/// What reaches the leaves from a sum of the result's elements, weighted without a pattern.
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

fn gated_by_parts(leaves: &[Tensor]) -> Tensor {
    let [x, norm, gate_proj, up_proj, down_proj] = leaves else { unreachable!() };
    let normed = rms_norm(x, norm, EPS).unwrap();
    let linear = |x: &Tensor, weight: &Tensor| x.linear(weight, None::<&Tensor>);
    let gated = swiglu(&linear(&normed, gate_proj), &linear(&normed, up_proj)).unwrap();
    x + linear(&gated, down_proj)
}

fn gated_in_one(leaves: &[Tensor]) -> Result<Tensor, TorchExtError> {
    let [x, post_attention_layernorm, gate_proj, up_proj, down_proj] = leaves else { unreachable!() };
    gated_block(x, &GatedBlock { post_attention_layernorm, eps: EPS, gate_proj, up_proj, down_proj })
}

#[test]
fn a_gated_block_is_its_parts() {
    for (kind, tolerance) in TOLERANCES {
        for tokens in [1, 83] {
            let leaves = leaves(&[&[tokens, 64], &[64], &[176, 64], &[176, 64], &[64, 176]], kind);
            let (found, expected) = (gated_in_one(&leaves).unwrap(), gated_by_parts(&leaves));
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

/// Tables of some turn by token.
fn turns(tokens: i64, dim: i64, kind: Kind) -> (Tensor, Tensor) {
    let half = numbers(&[tokens, 1, dim / 2], 0.3, Kind::Double) * 3.0;
    let (cos, sin) = (half.cos(), half.sin());
    (Tensor::cat(&[&cos, &cos], 2).to_kind(kind), Tensor::cat(&[&-&sin, &sin], 2).to_kind(kind))
}

fn attention_by_parts(leaves: &[Tensor], trees: &TokenTrees, dim: i64) -> Tensor {
    let [x, norm, q_proj, k_proj, v_proj, o_proj, biases @ ..] = leaves else { unreachable!() };
    let (cos, sin) = turns(x.size()[0], dim, x.kind());
    let normed = rms_norm(x, norm, EPS).unwrap();
    let heads =
        |weight: &Tensor, at: usize| normed.linear(weight, biases.get(at)).view([x.size()[0], -1, dim]);
    let turned = |heads: &Tensor| rotate(heads, &cos, &sin).unwrap();
    let attended =
        tree_attention(&turned(&heads(q_proj, 0)), &turned(&heads(k_proj, 1)), &heads(v_proj, 2), trees);
    x + attended.unwrap().view([x.size()[0], -1]).linear(o_proj, None::<&Tensor>)
}

fn attention_in_one(leaves: &[Tensor], trees: &TokenTrees, dim: i64) -> Result<Tensor, TorchExtError> {
    let [x, input_layernorm, q_proj, k_proj, v_proj, o_proj, biases @ ..] = leaves else { unreachable!() };
    let biases = match biases {
        [q, k, v] => Some([q, k, v]),
        _ => None,
    };
    let weights = AttentionBlock { input_layernorm, eps: EPS, q_proj, k_proj, v_proj, o_proj, biases };
    let (cos, sin) = turns(x.size()[0], dim, x.kind());
    attention_block(x, &weights, (&cos, &sin), trees)
}

/// Four heads of queries, two of keys, of a width that is not a quarter of the block's.
const SHAPES: [&[i64]; 9] =
    [&[90, 64], &[64], &[128, 64], &[64, 64], &[64, 64], &[64, 128], &[128], &[64], &[64]];

#[test]
fn a_block_of_attention_is_its_parts() {
    let trees = TokenTrees::new(ROWS);
    for (kind, tolerance) in TOLERANCES {
        for count in [6, 9] {
            let leaves = leaves(&SHAPES[..count], kind);
            let found = attention_in_one(&leaves, &trees, 32).unwrap();
            let expected = attention_by_parts(&leaves, &trees, 32);
            assert!(found.equal(&expected), "{count} operands of {kind:?}");
            let what = if count == 6 { "attention" } else { "attention with biases" };
            assert_near(what, kind, tolerance, &gradients(&found, &leaves), &gradients(&expected, &leaves));
        }
    }
}

#[test]
fn blocks_add_their_gradients_where_they_are_gathered() {
    let trees = TokenTrees::new(ROWS);
    let gated: &[&[i64]] = &[&[90, 64], &[64], &[176, 64], &[176, 64], &[64, 176]];
    for (kind, tolerance) in TOLERANCES {
        for shapes in [gated, &SHAPES[..6], &SHAPES] {
            let leaves = leaves(shapes, kind);
            let block = || match shapes.len() {
                5 => gated_in_one(&leaves).unwrap(),
                _ => attention_in_one(&leaves, &trees, 32).unwrap(),
            };
            let (output, others) = (block(), leaves[1..].iter().collect::<Vec<_>>());
            let gradient = numbers(&output.size(), 0.7, kind);
            // Twice, so that what is there is added to.
            let mut sums: Vec<Tensor> =
                others.iter().map(|leaf| Tensor::zeros(leaf.size(), (Kind::Float, Device::Cpu))).collect();
            for output in [output, block()] {
                let of_x = gather_gradients(&output, &gradient, &leaves[0], &others, &mut sums).unwrap();
                assert!(of_x.unwrap().equal(&gradients(&block(), &leaves)[0]), "{kind:?}");
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
fn what_is_not_trained_has_no_gradient_and_changes_none() {
    let trees = TokenTrees::new(ROWS);
    let all = leaves(&SHAPES[..6], Kind::Float);
    let expected = gradients(&attention_in_one(&all, &trees, 32).unwrap(), &all);
    let frozen: Vec<Tensor> = all.iter().map(Tensor::detach).collect();
    for at in 0..all.len() {
        let mut leaves: Vec<Tensor> = frozen.iter().map(Tensor::shallow_clone).collect();
        leaves[at] = all[at].detach().set_requires_grad(true);
        let found = gradients(&attention_in_one(&leaves, &trees, 32).unwrap(), &leaves[at..=at]);
        assert!(found[0].equal(&expected[at]), "gradient {at} alone");
    }
    assert!(!attention_in_one(&frozen, &trees, 32).unwrap().requires_grad());
    let in_peace = tch::no_grad(|| attention_in_one(&all, &trees, 32).unwrap());
    assert!(!in_peace.requires_grad() && in_peace.equal(&attention_in_one(&frozen, &trees, 32).unwrap()));
}

#[test]
fn what_does_not_fit_is_named() {
    let trees = TokenTrees::new(ROWS);
    let good = leaves(&SHAPES, Kind::Float);
    let with = |at: usize, other: Tensor| {
        let mut leaves: Vec<Tensor> = good.iter().map(Tensor::shallow_clone).collect();
        leaves[at] = other;
        attention_in_one(&leaves, &trees, 32).unwrap_err().to_string()
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
        // Of an x of another kind it is the rest that does not fit.
        for complaint in complaints.iter().take(if at == 0 { 1 } else { 2 }) {
            assert!(complaint.contains(name), "{name}: {complaint}");
        }
    }
    let turned = with(3, good[3].t_copy().contiguous().t_());
    assert!(turned.contains("k_proj"), "{turned}");
    let mut gated = leaves(&[&[4, 64], &[64], &[176, 64], &[176, 64], &[64, 176]], Kind::Float);
    gated[4] = gated[4].t_copy();
    assert!(gated_in_one(&gated).unwrap_err().to_string().contains("down_proj"));
}
