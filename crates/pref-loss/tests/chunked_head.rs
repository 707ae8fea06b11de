//! The chunked head against full logits, libtorch's log-softmax and autograd.
#![cfg(feature = "tch")]

use pref_loss::{ChunkedHead, HeadError, HeadTiles};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

/// Between two orders of the same fp32 sums: largest difference over largest magnitude.
const REORDERED_FP32: f64 = 1e-5;
/// The same in fp64.
const REORDERED_FP64: f64 = 1e-13;
/// Two bfloat16 computations of unit-variance logits: a last place is 2⁻⁸ of a value, and logits reach 4.
const LOGPS_BF16_NATS: f64 = 0.03;
/// Gradients of which both sides round the factors to bfloat16.
const GRADIENTS_BF16: f64 = 0.02;

struct Input {
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    coefficients: Tensor,
}

struct Output {
    logps: Tensor,
    hidden: Tensor,
    weight: Tensor,
}

impl Input {
    fn new(tokens: i64, vocab: i64, width: i64, kind: Kind) -> Self {
        let wave = |rows: i64, step: f64| {
            let angles = Tensor::arange(rows * width, (Kind::Double, Device::Cpu)) * step;
            angles.sin().view([rows, width]).to_kind(kind)
        };
        Self {
            hidden: wave(tokens, 0.731),
            weight: wave(vocab, 1.237) * (2.0 / (width as f64).sqrt()),
            targets: (Tensor::arange(tokens, (Kind::Int64, Device::Cpu)) * 7_919).remainder(vocab),
            coefficients: Tensor::arange(tokens, (Kind::Double, Device::Cpu)).cos().to_kind(Kind::Float),
        }
    }

    fn full(&self) -> Output {
        let hidden = self.hidden.detach().set_requires_grad(true);
        let weight = self.weight.detach().set_requires_grad(true);
        let kind = if hidden.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let logps = hidden.matmul(&weight.tr()).log_softmax(-1, kind);
        let logps = logps.gather(1, &self.targets.unsqueeze(1), false).squeeze_dim(1);
        (&logps * &self.coefficients).sum(kind).backward();
        Output { logps: logps.detach(), hidden: hidden.grad(), weight: weight.grad() }
    }

    fn chunked(&self, tiles: Option<HeadTiles>) -> Output {
        let head = ChunkedHead::new(&self.weight).unwrap();
        let head = match tiles {
            Some(tiles) => head.with_tiles(tiles),
            None => head,
        };
        let scored = head.forward(&self.hidden, &self.targets).unwrap();
        let logps = scored.logps().copy();
        let gradients = scored.backward(&self.coefficients).unwrap();
        Output { logps, hidden: gradients.hidden, weight: gradients.weight }
    }
}

fn tiles(rows: usize, columns: usize, kept: usize) -> HeadTiles {
    HeadTiles::new(rows, columns, kept).unwrap()
}

/// Largest difference over the largest magnitude of `b`.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    (&a - &b).abs().max().double_value(&[]) / b.abs().max().double_value(&[])
}

fn assert_equal(a: &Output, b: &Output, tolerance: f64) {
    for (name, a, b) in
        [("logps", &a.logps, &b.logps), ("hidden", &a.hidden, &b.hidden), ("weight", &a.weight, &b.weight)]
    {
        let found = difference(a, b);
        assert!(found <= tolerance, "{name}: {found:e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn tiled_and_full_logits_agree(
        tokens in 1_i64..40, vocab in 1_i64..90, width in 1_i64..20,
        rows in 1_usize..45, columns in 1_usize..100, kept in 0_usize..12,
    ) {
        let input = Input::new(tokens, vocab, width, Kind::Double);
        let (full, chunked) = (input.full(), input.chunked(Some(tiles(rows, columns, kept))));
        // A vocabulary of one has gradients of 0, and nothing to be relative to.
        for (a, b) in [(&chunked.logps, &full.logps), (&chunked.hidden, &full.hidden), (&chunked.weight, &full.weight)] {
            prop_assert!((a - b).abs().max().double_value(&[]) <= REORDERED_FP64 * (tokens as f64));
        }
    }
}

#[test]
fn default_and_custom_tiles_agree_in_float32() {
    // Chosen: two tiles of tokens by two of the vocabulary, three of the four kept.
    let input = Input::new(1_100, 5_003, 24, Kind::Float);
    let full = input.full();
    for tiles in [None, Some(tiles(1_100, 5_003, 0)), Some(tiles(97, 1_000, 0)), Some(tiles(97, 1_000, 7))] {
        let chunked = input.chunked(tiles);
        assert_eq!((chunked.logps.kind(), chunked.weight.kind()), (Kind::Float, Kind::Float));
        assert_equal(&chunked, &full, REORDERED_FP32);
    }
}

#[test]
fn bfloat16_sums_are_in_float32() {
    let input = Input::new(60, 700, 32, Kind::BFloat16);
    let (full, chunked) = (input.full(), input.chunked(Some(tiles(17, 100, 3))));
    assert_eq!((chunked.logps.kind(), chunked.hidden.kind()), (Kind::Float, Kind::Float));
    assert_eq!(chunked.weight.kind(), Kind::BFloat16);
    assert!((&chunked.logps - &full.logps).abs().max().double_value(&[]) <= LOGPS_BF16_NATS);
    assert!(difference(&chunked.hidden, &full.hidden) <= GRADIENTS_BF16);
    assert!(difference(&chunked.weight, &full.weight) <= GRADIENTS_BF16);
}

#[test]
fn the_gradient_of_a_likely_token_does_not_cancel() {
    // 1 − p = 1.4e-6, some twenty steps of fp32 below 1: onehot − softmax has to be taken before the products.
    let hidden = Tensor::from_slice(&[1.0_f32]).view([1, 1]);
    let weight = Tensor::from_slice(&[13.8_f32, 0.0, -1.0]).view([3, 1]);
    let targets = Tensor::from_slice(&[0_i64]);
    let input = Input { hidden, weight, targets, coefficients: Tensor::from_slice(&[1.0_f32]) };
    for kept in [0, 3] {
        assert_equal(&input.chunked(Some(tiles(1, 1, kept))), &input.full(), 0.1);
    }
}

#[test]
fn large_logits_do_not_overflow() {
    // Logits of 1e4, in f64 because in f32 they would differ by their own rounding.
    let mut input = Input::new(9, 50, 8, Kind::Double);
    input.hidden = &input.hidden * 1e4;
    assert_equal(&input.chunked(Some(tiles(4, 7, 5))), &input.full(), REORDERED_FP32);
}

#[test]
fn a_product_passes_the_gradient_to_autograd() {
    let input = Input::new(12, 30, 6, Kind::Float);
    let trunk_gradient = |loss: &dyn Fn(&Tensor) -> Tensor| {
        let trunk = Tensor::eye(6, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        loss(&input.hidden.matmul(&trunk)).backward();
        trunk.grad()
    };
    let full = trunk_gradient(&|hidden| {
        let logps = hidden.matmul(&input.weight.tr()).log_softmax(-1, Kind::Float);
        let logps = logps.gather(1, &input.targets.unsqueeze(1), false).squeeze_dim(1);
        (logps * &input.coefficients).sum(Kind::Float)
    });
    let chunked = trunk_gradient(&|hidden| {
        let scored = ChunkedHead::new(&input.weight).unwrap().forward(hidden, &input.targets).unwrap();
        assert!(!scored.logps().requires_grad());
        let gradients = scored.backward(&input.coefficients).unwrap();
        (hidden * gradients.hidden).sum(Kind::Float)
    });
    assert!(difference(&chunked, &full) <= REORDERED_FP32);
}

#[test]
fn backward_into_accumulates_the_weight_gradient() {
    for (kind, sums) in [
        (Kind::Float, Kind::Float),
        (Kind::Double, Kind::Double),
        (Kind::BFloat16, Kind::BFloat16),
        (Kind::BFloat16, Kind::Float),
    ] {
        let input = Input::new(20, 40, 8, kind);
        let head = ChunkedHead::new(&input.weight).unwrap().with_tiles(tiles(6, 9, 2));
        let expected = input.full().weight.to_kind(Kind::Double) + 1.0;
        let mut sum = Tensor::ones([40, 8], (sums, Device::Cpu)).set_requires_grad(true);
        let scored = head.forward(&input.hidden, &input.targets).unwrap();
        let hidden = scored.backward_into(&input.coefficients, &mut sum).unwrap();
        let tolerance = if kind == Kind::BFloat16 { GRADIENTS_BF16 } else { REORDERED_FP32 };
        assert!(difference(&sum, &expected) <= tolerance, "{kind:?} into {sums:?}");
        assert!(difference(&hidden, &input.full().hidden) <= tolerance);
    }
}

#[test]
fn one_token_and_zero_tokens() {
    let one = Input::new(1, 300, 8, Kind::Float);
    assert_equal(&one.chunked(None), &one.full(), REORDERED_FP32);
    let none = Input::new(0, 300, 8, Kind::Float).chunked(None);
    assert_eq!((none.logps.size(), none.hidden.size()), (vec![0], vec![0, 8]));
    assert_eq!(none.weight.size(), [300, 8]);
    assert_eq!(none.weight.abs().sum(Kind::Float).double_value(&[]), 0.0);
}

#[test]
fn nan_propagates_to_its_own_token() {
    for kept in [0, 40] {
        let mut input = Input::new(10, 40, 8, Kind::Float);
        let clean = input.chunked(Some(tiles(3, 11, kept)));
        let _ = input.hidden.get(4).fill_(f64::NAN);
        let spoilt = input.chunked(Some(tiles(3, 11, kept)));
        let nan: Vec<bool> = Vec::try_from(spoilt.logps.isnan()).unwrap();
        assert_eq!(nan, (0..10).map(|token| token == 4).collect::<Vec<_>>());
        assert_eq!(spoilt.logps.get(3), clean.logps.get(3));
        assert!(spoilt.hidden.get(4).isnan().all().int64_value(&[]) == 1);
        assert_eq!(spoilt.hidden.get(5), clean.hidden.get(5));
        input.weight = &input.weight * f64::NAN;
        assert_eq!(input.chunked(None).logps.isnan().sum(Kind::Int64).int64_value(&[]), 10);
    }
}

#[test]
fn log_collisions_are_those_of_the_full_softmax() {
    for (kind, tolerance) in [(Kind::Float, REORDERED_FP32), (Kind::Double, REORDERED_FP64)] {
        let input = Input::new(13, 101, 8, kind);
        let log_softmax = input.hidden.matmul(&input.weight.tr()).log_softmax(-1, kind);
        let full = (log_softmax * 2.0).logsumexp([-1], false);
        for tiles in [None, Some(tiles(4, 7, 0)), Some(tiles(1, 101, 2))] {
            let head = ChunkedHead::new(&input.weight).unwrap();
            let head = tiles.into_iter().fold(head, ChunkedHead::with_tiles);
            assert!(difference(&head.log_collisions(&input.hidden).unwrap(), &full) <= tolerance);
        }
    }
    // Large logits do not overflow: the largest one is certain.
    let weight = Tensor::from_slice(&[1e4_f32, -1e4]).view([2, 1]);
    let certain =
        ChunkedHead::new(&weight).unwrap().log_collisions(&Tensor::ones([1, 1], (Kind::Float, Device::Cpu)));
    assert_eq!(certain.unwrap().double_value(&[0]), 0.0);
}

#[test]
fn targets_outside_of_the_vocabulary_are_errors() {
    let input = Input::new(5, 40, 8, Kind::Float);
    let head = ChunkedHead::new(&input.weight).unwrap();
    for id in [40, -100, i64::MAX, i64::MIN] {
        let targets = Tensor::from_slice(&[0, 39, 1, id, id]);
        let error = head.forward(&input.hidden, &targets).unwrap_err();
        assert_eq!(error, HeadError::Target { index: 3, id, vocab: 40 });
    }
}

#[test]
fn errors_name_the_mismatched_tensor() {
    let input = Input::new(5, 40, 8, Kind::Float);
    let head = ChunkedHead::new(&input.weight).unwrap();
    let zeros = |size: &[i64], kind| Tensor::zeros(size, (kind, Device::Cpu));
    let named = |error: HeadError| match error {
        HeadError::Shape { tensor, .. } => format!("shape of {tensor}"),
        HeadError::Kind { tensor, .. } => format!("kind of {tensor}"),
        other => other.to_string(),
    };
    let weight = |size: &[i64], kind| named(ChunkedHead::new(&zeros(size, kind)).unwrap_err());
    assert_eq!(weight(&[40], Kind::Float), "shape of the head's weight");
    assert_eq!(weight(&[0, 8], Kind::Float), "shape of the head's weight");
    assert_eq!(weight(&[40, 8], Kind::Int64), "kind of the head's weight");
    let forward = |hidden: &Tensor, targets: &Tensor| named(head.forward(hidden, targets).unwrap_err());
    assert_eq!(forward(&zeros(&[5, 7], Kind::Float), &input.targets), "shape of hidden states");
    assert_eq!(forward(&zeros(&[1, 5, 8], Kind::Float), &input.targets), "shape of hidden states");
    assert_eq!(forward(&zeros(&[], Kind::Float), &input.targets), "shape of hidden states");
    assert_eq!(forward(&zeros(&[5, 8], Kind::BFloat16), &input.targets), "kind of hidden states");
    assert_eq!(forward(&input.hidden, &zeros(&[4], Kind::Int64)), "shape of targets");
    assert_eq!(forward(&input.hidden, &zeros(&[5], Kind::Int)), "kind of targets");
    let scored = || head.forward(&input.hidden, &input.targets).unwrap();
    let backward = |coefficients: &Tensor| named(scored().backward(coefficients).unwrap_err());
    assert_eq!(backward(&zeros(&[4], Kind::Float)), "shape of coefficients");
    assert_eq!(backward(&zeros(&[5, 1], Kind::Float)), "shape of coefficients");
    assert_eq!(backward(&zeros(&[5], Kind::Int64)), "kind of coefficients");
    let into = |mut sum: Tensor| named(scored().backward_into(&input.coefficients, &mut sum).unwrap_err());
    assert_eq!(into(zeros(&[40, 7], Kind::Float)), "shape of the weight's gradient");
    assert_eq!(into(zeros(&[40, 8], Kind::BFloat16)), "kind of the weight's gradient");
    assert_eq!(HeadTiles::new(0, 3, 1).unwrap_err(), HeadError::EmptyTile { rows: 0, columns: 3 });
}
