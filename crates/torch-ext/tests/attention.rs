//! Attention of packed rows against its closed form in doubles, values and gradients.

use tch::{Device, Kind, Tensor};
use torch_ext::{TokenTrees, TorchExtError, tree_attention};

/// Of the largest number: a few units in the last place of a sum in fp32; of bf16 one unit of the result, and as much of the
/// result that the gradients are computed from.
const TOLERANCES: [(Kind, f64); 2] = [(Kind::Float, 4e-6), (Kind::BFloat16, 1.2e-2)];

/// Trunks and branches of rows, as many tokens as each has.
type Rows = &'static [(usize, &'static [usize])];

/// A row within a tile, rows of several tiles in trunk and branches, rows that have only one of both, and lengths on and
/// beside every edge: of a vector, a strip and a tile.
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

/// Numbers in (-1, 1) without a pattern, the same at every run.
fn numbers(shape: &[i64], seed: f64, kind: Kind) -> Tensor {
    let count = shape.iter().product::<i64>();
    let at = Tensor::arange(count, (Kind::Double, Device::Cpu)) + seed;
    (((at * 12.9898).sin() * 43_758.545_3).frac()).view(shape).to_kind(kind)
}

fn trees(rows: &[(usize, &[usize])]) -> TokenTrees {
    TokenTrees::new(rows.iter().copied())
}

/// Queries, keys and values of `tokens`, as leaves.
fn operands(tokens: i64, heads: [i64; 2], dim: i64, kind: Kind) -> [Tensor; 3] {
    let [q, k, v] = [(heads[0], 1.0, 3.0), (heads[1], 2.0, 2.0), (heads[1], 3.0, 1.0)];
    [q, k, v].map(|(heads, seed, reach)| {
        (numbers(&[tokens, heads, dim], seed, kind) * reach).detach().set_requires_grad(true)
    })
}

/// `[N, N]` bool: who sees whom, token by token.
fn seen(rows: &[(usize, &[usize])]) -> Tensor {
    // Of every token its row and its part.
    let place = rows.iter().enumerate().flat_map(|(row, (trunk, branches))| {
        let parts = std::iter::once(trunk).chain(branches.iter()).enumerate();
        parts.flat_map(move |(part, &length)| std::iter::repeat_n((row, part), length))
    });
    let place: Vec<(usize, usize)> = place.collect();
    let sees = |query: usize, key: usize| {
        let ((row, part), (of_row, of_part)) = (place[query], place[key]);
        key <= query && row == of_row && (of_part == 0 || of_part == part)
    };
    let tokens = place.len();
    let all: Vec<bool> = (0..tokens)
        .flat_map(|query| (0..tokens).map(move |key| (query, key)))
        .map(|(q, k)| sees(q, k))
        .collect();
    Tensor::from_slice(&all).view([tokens as i64, tokens as i64])
}

/// The equation as it stands.
fn closed_form(q: &Tensor, k: &Tensor, v: &Tensor, seen: &Tensor) -> Tensor {
    let group = q.size()[1] / k.size()[1];
    let by_head = |x: &Tensor, times: i64| x.repeat_interleave_self_int(times, 1, None).transpose(0, 1);
    let (q, k, v) = (by_head(q, 1), by_head(k, group), by_head(v, group));
    let scores = q.matmul(&k.transpose(1, 2)) / (q.size()[2] as f64).sqrt();
    let weights = scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY).softmax(-1, Kind::Double);
    weights.matmul(&v).transpose(0, 1)
}

/// The result, and the gradients of what it was made of where the result meets some numbers.
fn all_of(result: &Tensor, given: &[Tensor]) -> Vec<Tensor> {
    let grad = numbers(&result.size(), 0.5, Kind::BFloat16).to_kind(result.kind());
    (result * grad).sum(Kind::Double).backward();
    std::iter::once(result.detach()).chain(given.iter().map(Tensor::grad)).collect()
}

fn bits_differ(a: &[Tensor], b: &[Tensor]) -> bool {
    a.iter().zip(b).any(|(a, b)| !a.equal(b))
}

#[test]
fn it_is_that_of_doubles() {
    let trees = trees(ROWS);
    for (kind, tolerance) in TOLERANCES {
        // Groups of one and of several heads; heads of one vector, of four, and of others.
        for (heads, dim) in [([3, 1], 64), ([2, 2], 16), ([4, 2], 80), ([1, 1], 128)] {
            let given = operands(trees.tokens(), heads, dim, kind);
            let doubles = given.each_ref().map(|x| x.detach().to_kind(Kind::Double).set_requires_grad(true));
            let found = tree_attention(&given[0], &given[1], &given[2], &trees).unwrap();
            assert_eq!((found.kind(), found.size()), (kind, given[0].size()));
            let exact = closed_form(&doubles[0], &doubles[1], &doubles[2], &seen(ROWS));
            let names = ["value", "queries", "keys", "values"];
            let (found, exact) = (all_of(&found, &given), all_of(&exact, &doubles));
            for ((name, found), exact) in names.iter().zip(&found).zip(&exact) {
                let difference = (found.to_kind(Kind::Double) - exact).abs().max() / exact.abs().max();
                let difference = difference.double_value(&[]);
                assert!(difference < tolerance, "{name} of {kind:?}, {heads:?} heads of {dim}: {difference}");
            }
        }
    }
}

#[test]
fn no_bit_depends_on_threads() {
    let rows: Rows = &[(150, &[90, 40]), (20, &[30, 31]), (300, &[]), (64, &[64, 64])];
    let trees = trees(rows);
    let with = |threads| {
        tch::set_num_threads(threads);
        let given = operands(trees.tokens(), [6, 2], 64, Kind::Float);
        let result = tree_attention(&given[0], &given[1], &given[2], &trees).unwrap();
        all_of(&result, &given)
    };
    let before = tch::get_num_threads();
    let (one, four) = (with(1), with(4));
    tch::set_num_threads(before);
    assert!(!bits_differ(&one, &four));
}

#[test]
fn no_bit_depends_on_the_rows_beside() {
    let alone: Rows = &[(70, &[20, 65])];
    let among: Rows = &[(3, &[9]), (70, &[20, 65]), (200, &[1])];
    let (before, tokens) = (12, 155);
    let given = operands(trees(among).tokens(), [2, 1], 32, Kind::Float);
    let result = tree_attention(&given[0], &given[1], &given[2], &trees(among)).unwrap();
    let own =
        given.each_ref().map(|x| x.detach().narrow(0, before, tokens).contiguous().set_requires_grad(true));
    let expected = tree_attention(&own[0], &own[1], &own[2], &trees(alone)).unwrap();
    let part = |x: &Tensor| x.narrow(0, before, tokens).detach();
    assert!(part(&result).equal(&expected));
    let grad = numbers(&result.size(), 0.5, Kind::Float);
    (&result * &grad).sum(Kind::Float).backward();
    (&expected * part(&grad)).sum(Kind::Float).backward();
    let (found, expected) = (given.map(|x| part(&x.grad())), own.map(|x| x.grad()));
    assert!(!bits_differ(&found, &expected));
}

#[test]
fn no_bit_depends_on_which_branch_comes_first() {
    let (trunk, first, second) = (90, 70, 33);
    let given = operands(trunk + first + second, [2, 1], 32, Kind::BFloat16);
    let turned = |x: &Tensor, lengths: [i64; 3]| {
        let parts = x.detach().split_with_sizes(lengths.as_slice(), 0);
        Tensor::cat(&[&parts[0], &parts[2], &parts[1]], 0)
    };
    let (there, back) = ([trunk, first, second], [trunk, second, first]);
    let other = given.each_ref().map(|x| turned(x, there).set_requires_grad(true));
    let with = |given: &[Tensor; 3], lengths: [i64; 3]| {
        let branches = [lengths[1] as usize, lengths[2] as usize];
        let trees = TokenTrees::new([(trunk as usize, &branches[..])]);
        tree_attention(&given[0], &given[1], &given[2], &trees).unwrap()
    };
    let (result, swapped) = (with(&given, there), with(&other, back));
    assert!(result.equal(&turned(&swapped, back)));
    let grad = numbers(&result.size(), 0.5, Kind::BFloat16);
    (&result * &grad).sum(Kind::Float).backward();
    (&swapped * turned(&grad, there)).sum(Kind::Float).backward();
    let (found, expected) = (given.map(|x| x.grad()), other.map(|x| turned(&x.grad(), back)));
    assert!(!bits_differ(&found, &expected));
}

#[test]
fn scores_of_any_size_are_weighed() {
    // e^x of these is beyond fp32; what the largest one adds is all there is.
    let q = Tensor::full([3, 1, 16], 30.0, (Kind::Float, Device::Cpu));
    let k = Tensor::from_slice(&[-30f32, 30.0, -30.0]).view([3, 1, 1])
        * Tensor::ones([3, 1, 16], (Kind::Float, Device::Cpu));
    let v = Tensor::from_slice(&[1f32, 2.0, 3.0]).view([3, 1, 1])
        * Tensor::ones([3, 1, 16], (Kind::Float, Device::Cpu));
    let seen = tree_attention(&q, &k, &v, &trees(&[(3, &[])])).unwrap();
    assert_eq!(Vec::<f32>::try_from(seen.select(2, 0).view(-1)).unwrap(), [1.0, 2.0, 2.0]);
}

#[test]
fn numbers_that_are_none_stay_visible_and_in_their_row() {
    let [q, k, v] = operands(8, [1, 1], 16, Kind::Float).map(|x| x.detach());
    let _ = k.get(1).fill_(f64::NAN);
    let seen = tree_attention(&q, &k, &v, &trees(&[(4, &[]), (4, &[])])).unwrap();
    let none: Vec<bool> = Vec::try_from(seen.isnan().select(2, 0).view(-1)).unwrap();
    assert_eq!(none[1..], [true, true, true, false, false, false, false]);
}

#[test]
fn nothing_is_fine_and_what_wants_no_gradient_gets_none() {
    let [q, k, v] = operands(0, [2, 1], 16, Kind::Float);
    tree_attention(&q, &k, &v, &trees(&[])).unwrap().sum(Kind::Float).backward();
    assert_eq!(k.grad().size(), [0, 1, 16]);
    let [q, k, v] = operands(4, [2, 1], 16, Kind::Float);
    let silent = tch::no_grad(|| tree_attention(&q, &k, &v, &trees(&[(4, &[])]))).unwrap();
    assert!(!silent.requires_grad());
    tree_attention(&q, &k.detach(), &v.detach(), &trees(&[(4, &[])])).unwrap().sum(Kind::Float).backward();
    assert!(q.grad().defined() && !k.grad().defined());
}

#[test]
fn what_it_does_not_take_has_an_error() {
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
    let float = |shape: &[i64]| zeros(shape, Kind::Float);
    let of = |q: &Tensor, k: &Tensor, v: &Tensor| tree_attention(q, k, v, &trees(&[(4, &[2])])).unwrap_err();
    let (q, k) = (float(&[6, 4, 16]), float(&[6, 2, 16]));
    let shape = |error: TorchExtError| match error {
        TorchExtError::Shape { tensor, expected, .. } => (tensor, expected),
        error => panic!("{error}"),
    };
    assert_eq!(shape(of(&float(&[5, 4, 16]), &k, &k)), ("the queries", vec![6, 4, 16]));
    assert_eq!(shape(of(&float(&[6, 4, 24]), &k, &k)), ("the queries", vec![6, 4, 32]));
    assert_eq!(shape(of(&float(&[6, 64]), &k, &k)), ("the queries", vec![-1, -1, -1]));
    assert_eq!(shape(of(&q, &float(&[6, 3, 16]), &k)), ("the keys", vec![6, 4, 16]));
    assert_eq!(shape(of(&q, &k, &q)), ("the values", vec![6, 2, 16]));
    let low = zeros(&[6, 2, 16], Kind::BFloat16);
    assert!(matches!(of(&q, &low, &k), TorchExtError::Kind { tensor: "the keys", .. }));
    let half = zeros(&[6, 4, 16], Kind::Half);
    assert!(matches!(of(&half, &k, &k), TorchExtError::Kind { tensor: "the queries", .. }));
    let turned = float(&[2, 6, 16]).transpose(0, 1);
    assert!(matches!(of(&q, &turned, &k), TorchExtError::NotContiguous { tensor: "the keys" }));
}
