//! Attention of rows with shared prefixes against its definition in doubles, values and gradients.

mod common;

use common::on_each_instruction_set;
use tch::{Device, Kind, Tensor};
use torch_ext::{SharedPrefixRows, TorchExtError, shared_prefix_attention};

/// Relative to the largest number. In fp32 a few ulps of a sum; in bf16 one ulp of the result, and one of the result in
/// the gradients' computation.
const TOLERANCES: [(Kind, f64); 2] = [(Kind::Float, 4e-6), (Kind::BFloat16, 1.2e-2)];

/// Lengths of the prefix and the continuations of each row.
type Rows = &'static [(usize, &'static [usize])];

/// Rows within a tile and of several tiles, rows without a prefix or continuations. Lengths are at and next to the
/// edges of a vector, a strip and a tile.
const ROWS: Rows = &[
    (5, &[3, 2]),
    (130, &[70, 64, 1]),
    (64, &[65]),
    (0, &[17, 4]),
    (33, &[]),
    (1, &[]),
    (0, &[]),
    (16, &[0, 48]),
];

/// Reproducible numbers in (-1, 1) without a pattern.
fn numbers(shape: &[i64], seed: f64, kind: Kind) -> Tensor {
    let count = shape.iter().product::<i64>();
    let at = Tensor::arange(count, (Kind::Double, Device::Cpu)) + seed;
    (((at * 12.9898).sin() * 43_758.545_3).frac()).view(shape).to_kind(kind)
}

fn layout(rows: &[(usize, &[usize])]) -> SharedPrefixRows {
    SharedPrefixRows::new(rows.iter().copied())
}

/// Queries, keys and values of `tokens`, as leaves.
fn operands(tokens: i64, heads: [i64; 2], dim: i64, kind: Kind) -> [Tensor; 3] {
    let [q, k, v] = [(heads[0], 1.0, 3.0), (heads[1], 2.0, 2.0), (heads[1], 3.0, 1.0)];
    [q, k, v].map(|(heads, seed, reach)| {
        (numbers(&[tokens, heads, dim], seed, kind) * reach).detach().set_requires_grad(true)
    })
}

/// The mask `[N, N]` bool by its definition.
fn seen(rows: &[(usize, &[usize])]) -> Tensor {
    // The row and the segment of every token.
    let place = rows.iter().enumerate().flat_map(|(row, (prefix, continuations))| {
        let segments = std::iter::once(prefix).chain(continuations.iter()).enumerate();
        segments.flat_map(move |(segment, &length)| std::iter::repeat_n((row, segment), length))
    });
    let place: Vec<(usize, usize)> = place.collect();
    let sees = |query: usize, key: usize| {
        let ((row, segment), (key_row, key_segment)) = (place[query], place[key]);
        key <= query && row == key_row && (key_segment == 0 || key_segment == segment)
    };
    let tokens = place.len();
    let all: Vec<bool> = (0..tokens)
        .flat_map(|query| (0..tokens).map(move |key| (query, key)))
        .map(|(q, k)| sees(q, k))
        .collect();
    Tensor::from_slice(&all).view([tokens as i64, tokens as i64])
}

/// Attention by its definition.
fn closed_form(q: &Tensor, k: &Tensor, v: &Tensor, seen: &Tensor) -> Tensor {
    let group = q.size()[1] / k.size()[1];
    let by_head = |x: &Tensor, times: i64| x.repeat_interleave_self_int(times, 1, None).transpose(0, 1);
    let (q, k, v) = (by_head(q, 1), by_head(k, group), by_head(v, group));
    let scores = q.matmul(&k.transpose(1, 2)) / (q.size()[2] as f64).sqrt();
    let weights = scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY).softmax(-1, Kind::Double);
    weights.matmul(&v).transpose(0, 1)
}

/// The result, and the gradients of its operands.
fn with_gradients(result: &Tensor, given: &[Tensor]) -> Vec<Tensor> {
    let grad = numbers(&result.size(), 0.5, Kind::BFloat16).to_kind(result.kind());
    (result * grad).sum(Kind::Double).backward();
    std::iter::once(result.detach()).chain(given.iter().map(Tensor::grad)).collect()
}

fn bits_differ(a: &[Tensor], b: &[Tensor]) -> bool {
    a.iter().zip(b).any(|(a, b)| !a.equal(b))
}

#[test]
fn attention_matches_doubles() {
    on_each_instruction_set(|| {
        let rows = layout(ROWS);
        for (kind, tolerance) in TOLERANCES {
            // Groups of one and of several heads; heads of one vector, of four, and of others.
            for (heads, dim) in [([3, 1], 64), ([2, 2], 16), ([4, 2], 80), ([1, 1], 128)] {
                let given = operands(rows.tokens(), heads, dim, kind);
                let doubles =
                    given.each_ref().map(|x| x.detach().to_kind(Kind::Double).set_requires_grad(true));
                let found = shared_prefix_attention(&given[0], &given[1], &given[2], &rows).unwrap().unwrap();
                assert_eq!((found.kind(), found.size()), (kind, given[0].size()));
                let exact = closed_form(&doubles[0], &doubles[1], &doubles[2], &seen(ROWS));
                let names = ["value", "queries", "keys", "values"];
                let (found, exact) = (with_gradients(&found, &given), with_gradients(&exact, &doubles));
                for ((name, found), exact) in names.iter().zip(&found).zip(&exact) {
                    let difference = (found.to_kind(Kind::Double) - exact).abs().max() / exact.abs().max();
                    let difference = difference.double_value(&[]);
                    assert!(
                        difference < tolerance,
                        "{name} of {kind:?}, {heads:?} heads of {dim}: {difference}"
                    );
                }
            }
        }
    });
}

#[test]
fn no_bit_depends_on_threads() {
    let rows: Rows = &[(150, &[90, 40]), (20, &[30, 31]), (300, &[]), (64, &[64, 64])];
    let rows = layout(rows);
    let with = |threads| {
        tch::set_num_threads(threads);
        let given = operands(rows.tokens(), [6, 2], 64, Kind::Float);
        let result = shared_prefix_attention(&given[0], &given[1], &given[2], &rows).unwrap().unwrap();
        with_gradients(&result, &given)
    };
    let before = tch::get_num_threads();
    let (one, four) = (with(1), with(4));
    tch::set_num_threads(before);
    assert!(!bits_differ(&one, &four));
}

#[test]
fn no_bit_depends_on_other_rows() {
    let alone: Rows = &[(70, &[20, 65])];
    let among: Rows = &[(3, &[9]), (70, &[20, 65]), (200, &[1])];
    let (before, tokens) = (12, 155);
    let given = operands(layout(among).tokens(), [2, 1], 32, Kind::Float);
    let result = shared_prefix_attention(&given[0], &given[1], &given[2], &layout(among)).unwrap().unwrap();
    let own =
        given.each_ref().map(|x| x.detach().narrow(0, before, tokens).contiguous().set_requires_grad(true));
    let expected = shared_prefix_attention(&own[0], &own[1], &own[2], &layout(alone)).unwrap().unwrap();
    let part = |x: &Tensor| x.narrow(0, before, tokens).detach();
    assert!(part(&result).equal(&expected));
    let grad = numbers(&result.size(), 0.5, Kind::Float);
    (&result * &grad).sum(Kind::Float).backward();
    (&expected * part(&grad)).sum(Kind::Float).backward();
    let (found, expected) = (given.map(|x| part(&x.grad())), own.map(|x| x.grad()));
    assert!(!bits_differ(&found, &expected));
}

#[test]
fn no_bit_depends_on_the_order_of_continuations() {
    let (prefix, first, second) = (90, 70, 33);
    let given = operands(prefix + first + second, [2, 1], 32, Kind::BFloat16);
    let reordered = |x: &Tensor, lengths: [i64; 3]| {
        let parts = x.detach().split_with_sizes(lengths.as_slice(), 0);
        Tensor::cat(&[&parts[0], &parts[2], &parts[1]], 0)
    };
    let (there, back) = ([prefix, first, second], [prefix, second, first]);
    let other = given.each_ref().map(|x| reordered(x, there).set_requires_grad(true));
    let with = |given: &[Tensor; 3], lengths: [i64; 3]| {
        let continuations = [lengths[1] as usize, lengths[2] as usize];
        let rows = SharedPrefixRows::new([(prefix as usize, &continuations[..])]);
        shared_prefix_attention(&given[0], &given[1], &given[2], &rows).unwrap().unwrap()
    };
    let (result, swapped) = (with(&given, there), with(&other, back));
    assert!(result.equal(&reordered(&swapped, back)));
    let grad = numbers(&result.size(), 0.5, Kind::BFloat16);
    (&result * &grad).sum(Kind::Float).backward();
    (&swapped * reordered(&grad, there)).sum(Kind::Float).backward();
    let (found, expected) = (given.map(|x| x.grad()), other.map(|x| reordered(&x.grad(), back)));
    assert!(!bits_differ(&found, &expected));
}

#[test]
fn large_scores_do_not_overflow() {
    // e^x of these scores overflows fp32; the largest one has all the weight.
    let q = Tensor::full([3, 1, 16], 30.0, (Kind::Float, Device::Cpu));
    let k = Tensor::from_slice(&[-30f32, 30.0, -30.0]).view([3, 1, 1])
        * Tensor::ones([3, 1, 16], (Kind::Float, Device::Cpu));
    let v = Tensor::from_slice(&[1f32, 2.0, 3.0]).view([3, 1, 1])
        * Tensor::ones([3, 1, 16], (Kind::Float, Device::Cpu));
    let seen = shared_prefix_attention(&q, &k, &v, &layout(&[(3, &[])])).unwrap().unwrap();
    assert_eq!(Vec::<f32>::try_from(seen.select(2, 0).view(-1)).unwrap(), [1.0, 2.0, 2.0]);
}

#[test]
fn nan_propagates_within_its_row() {
    let [q, k, v] = operands(8, [1, 1], 16, Kind::Float).map(|x| x.detach());
    let _ = k.get(1).fill_(f64::NAN);
    let seen = shared_prefix_attention(&q, &k, &v, &layout(&[(4, &[]), (4, &[])])).unwrap().unwrap();
    let none: Vec<bool> = Vec::try_from(seen.isnan().select(2, 0).view(-1)).unwrap();
    assert_eq!(none[1..], [true, true, true, false, false, false, false]);
}

#[test]
fn empty_rows_are_supported_and_operands_without_gradients_get_none() {
    let [q, k, v] = operands(0, [2, 1], 16, Kind::Float);
    shared_prefix_attention(&q, &k, &v, &layout(&[])).unwrap().unwrap().sum(Kind::Float).backward();
    assert_eq!(k.grad().size(), [0, 1, 16]);
    let [q, k, v] = operands(4, [2, 1], 16, Kind::Float);
    let silent = tch::no_grad(|| shared_prefix_attention(&q, &k, &v, &layout(&[(4, &[])]))).unwrap().unwrap();
    assert!(!silent.requires_grad());
    shared_prefix_attention(&q, &k.detach(), &v.detach(), &layout(&[(4, &[])]))
        .unwrap()
        .unwrap()
        .sum(Kind::Float)
        .backward();
    assert!(q.grad().defined() && !k.grad().defined());
}

#[test]
fn operands_that_do_not_fit_are_errors() {
    let float = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let refused = |q: &Tensor, k: &Tensor, v: &Tensor| {
        shared_prefix_attention(q, k, v, &layout(&[(4, &[2])])).unwrap_err()
    };
    let (q, k) = (float(&[6, 4, 16]), float(&[6, 2, 16]));
    let shape = |error: TorchExtError| match error {
        TorchExtError::Shape { tensor, expected, .. } => (tensor, expected),
        error => panic!("{error}"),
    };
    assert_eq!(shape(refused(&float(&[5, 4, 16]), &k, &k)), ("the queries", vec![6, -1, -1]));
    assert_eq!(shape(refused(&float(&[6, 64]), &k, &k)), ("the queries", vec![6, -1, -1]));
    assert_eq!(shape(refused(&q, &float(&[6, 3, 16]), &k)), ("the keys", vec![6, 4, 16]));
    assert_eq!(shape(refused(&q, &k, &q)), ("the values", vec![6, 2, 16]));
    let low = k.to_kind(Kind::BFloat16);
    assert!(matches!(refused(&q, &low, &k), TorchExtError::Kind { tensor: "the keys", .. }));
}

#[test]
fn operands_without_a_kernel_are_unsupported() {
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
    let is_unsupported =
        |q: &Tensor, k: &Tensor| shared_prefix_attention(q, k, k, &layout(&[(4, &[2])])).unwrap().is_none();
    let (q, k) = (zeros(&[6, 4, 16], Kind::Float), zeros(&[6, 2, 16], Kind::Float));
    assert!(!is_unsupported(&q, &k));
    assert!(is_unsupported(&q.to_kind(Kind::Half), &k.to_kind(Kind::Half)));
    assert!(is_unsupported(&zeros(&[6, 4, 24], Kind::Float), &zeros(&[6, 2, 24], Kind::Float)));
    assert!(is_unsupported(&q, &zeros(&[2, 6, 16], Kind::Float).transpose(0, 1)));
}
