//! Products of few rows, and attention of one query, against libtorch in doubles.

mod common;

use common::on_each_instruction_set;
use tch::{Device, Kind, Tensor};
use torch_ext::{TorchExtError, decode_attention, decode_linear};

/// Reproducible numbers without a pattern.
fn numbers(shape: &[i64], kind: Kind) -> Tensor {
    let count = shape.iter().product::<i64>();
    let at = Tensor::arange(count, (Kind::Double, Device::Cpu));
    ((at * 12.9898).sin() * 43_758.545_3).frac().view(shape).to_kind(kind)
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

#[test]
fn products_of_any_shape_match_doubles() {
    on_each_instruction_set(|| {
        // Widths around the sixteen lanes and four partial sums of the kernel, outputs for several threads, whole tiles, and partial
        // ones.
        for width in [1, 7, 16, 63, 64, 65, 576, 1000] {
            for (rows, outs) in
                [(1, 1), (1, 300), (3, 37), (4, 5000), (1, 32), (15, 96), (33, 992), (64, 64), (70, 320)]
            {
                for (kind, tolerance) in [(Kind::Float, 1e-6), (Kind::BFloat16, 4e-3)] {
                    let (x, weight) = (numbers(&[rows, width], kind), numbers(&[outs, width], kind) - 0.3);
                    let weight = weight.to_kind(kind);
                    let found = decode_linear(&x, &weight).unwrap().unwrap();
                    assert_eq!((found.size(), found.kind()), (vec![rows, outs], kind));
                    let exact = x.to_kind(Kind::Double).matmul(&weight.to_kind(Kind::Double).tr());
                    let scale = largest(&exact).max(1.0);
                    let difference = largest(&(found.to_kind(Kind::Double) - exact)) / scale;
                    assert!(difference < tolerance, "{kind:?} {rows} {width} {outs}: {difference}");
                }
            }
        }
    });
}

#[test]
fn rows_are_independent() {
    for (rows, outs, width) in [(4, 70, 200), (70, 96, 192)] {
        let (x, weight) = (numbers(&[rows, width], Kind::BFloat16), numbers(&[outs, width], Kind::BFloat16));
        let together = decode_linear(&x, &weight).unwrap().unwrap();
        for row in 0..rows {
            let alone = decode_linear(&x.narrow(0, row, 1), &weight).unwrap().unwrap();
            assert!(alone.equal(&together.narrow(0, row, 1)), "row {row} of {rows}");
        }
    }
}

#[test]
fn nan_propagates() {
    let x = Tensor::from_slice(&[f32::NAN, 1.0]).view([1, 2]);
    let weight = Tensor::from_slice(&[1f32, 0.0, 0.0, 1.0]).view([2, 2]);
    assert!(Vec::<f32>::try_from(decode_linear(&x, &weight).unwrap().unwrap().view(-1)).unwrap()[0].is_nan());
}

#[test]
fn empty_operands_are_supported() {
    let empty = |rows, width| Tensor::zeros([rows, width], (Kind::Float, Device::Cpu));
    assert_eq!(decode_linear(&empty(0, 3), &empty(2, 3)).unwrap().unwrap().size(), [0, 2]);
    let sums = decode_linear(&empty(1, 0), &empty(2, 0)).unwrap().unwrap();
    assert_eq!(Vec::<f32>::try_from(sums.view(-1)).unwrap(), [0.0, 0.0]);
}

#[test]
fn operands_of_a_product_that_do_not_fit_are_errors() {
    let float = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let refused = |x: &Tensor, weight: &Tensor| decode_linear(x, weight).unwrap_err();
    let low = float(&[1, 3]).to_kind(Kind::BFloat16);
    assert!(matches!(refused(&low, &float(&[2, 3])), TorchExtError::Kind { tensor: "the weight", .. }));
    let double = float(&[2, 3]).to_kind(Kind::Double);
    assert!(matches!(refused(&float(&[1, 3]), &double), TorchExtError::Kind { tensor: "the weight", .. }));
    assert!(matches!(refused(&float(&[1, 4]), &float(&[2, 3])), TorchExtError::Shape { tensor: "x", .. }));
    assert!(matches!(refused(&float(&[3]), &float(&[2, 3])), TorchExtError::Shape { tensor: "x", .. }));
    assert!(matches!(
        refused(&float(&[1, 3]), &float(&[3])),
        TorchExtError::Shape { tensor: "the weight", .. }
    ));
    let unsupported = |x: &Tensor, weight: &Tensor| decode_linear(x, weight).unwrap().is_none();
    assert!(unsupported(&float(&[1, 3]), &float(&[3, 2]).tr()));
    assert!(unsupported(&float(&[1, 3]).to_kind(Kind::Half), &float(&[2, 3]).to_kind(Kind::Half)));
}

/// Attention by its definition, in doubles.
fn attention(q: &Tensor, k: &Tensor, v: &Tensor, first: &[i64]) -> Tensor {
    let [q, k, v] = [q, k, v].map(|t| t.to_kind(Kind::Double));
    let group = q.size()[1] / k.size()[1];
    let (k, v) = (k.repeat_interleave_self_int(group, 1, None), v.repeat_interleave_self_int(group, 1, None));
    let (columns, dim) = (k.size()[2], k.size()[3]);
    let hidden = Tensor::arange(columns, (Kind::Int64, Device::Cpu))
        .lt_tensor(&Tensor::from_slice(first).unsqueeze(1));
    let scores = q.unsqueeze(2).matmul(&k.transpose(2, 3)) / (dim as f64).sqrt();
    let scores = scores.masked_fill(&hidden.unsqueeze(1).unsqueeze(1), f64::NEG_INFINITY);
    scores.softmax(-1, Kind::Double).matmul(&v).squeeze_dim(2)
}

#[test]
fn attention_over_any_cache_matches_doubles() {
    on_each_instruction_set(|| {
        for (heads, kv_heads, columns, dim) in
            [(1, 1, 1, 16), (9, 3, 37, 64), (4, 4, 200, 32), (8, 2, 65, 128)]
        {
            for (kind, tolerance) in [(Kind::Float, 2e-6), (Kind::BFloat16, 4e-3)] {
                let rows = 3;
                let q = (numbers(&[rows, heads, dim], Kind::Double) * 4.0 - 2.0).to_kind(kind);
                // A cache has unused columns at its end, and a window excludes columns at its start.
                let cache = |shift: f64| {
                    (numbers(&[rows, kv_heads, columns + 9, dim], Kind::Double) * 4.0 - shift).to_kind(kind)
                };
                let (k, v) = (cache(2.0).narrow(2, 4, columns), cache(1.5).narrow(2, 4, columns));
                let first = [0, columns / 2, columns - 1];
                let found = decode_attention(&q, &k, &v, &Tensor::from_slice(&first)).unwrap().unwrap();
                let exact = attention(&q, &k, &v, &first);
                let difference = largest(&(found.to_kind(Kind::Double) - &exact)) / largest(&exact);
                assert!(difference < tolerance, "{kind:?} {heads} {kv_heads} {columns} {dim}: {difference}");
            }
        }
    });
}

#[test]
fn attention_selects_a_dominant_score_and_averages_equal_ones() {
    let option = (Kind::Float, Device::Cpu);
    let q = Tensor::full([1, 1, 16], 100.0, option);
    let (k, v) = (Tensor::zeros([1, 1, 20, 16], option), numbers(&[1, 1, 20, 16], Kind::Float));
    let all = Tensor::from_slice(&[0_i64]);
    let even = decode_attention(&q, &k, &v, &all).unwrap().unwrap();
    assert!(largest(&(even - v.mean_dim(2, false, Kind::Float))) < 1e-6);
    let _ = k.narrow(2, 7, 1).fill_(1.0);
    let sharp = decode_attention(&q, &k, &v, &all).unwrap().unwrap();
    assert!(sharp.equal(&v.select(2, 7)), "the weights of the others are e^-400");
}

#[test]
fn attention_propagates_nan_of_visible_columns() {
    let option = (Kind::Float, Device::Cpu);
    let (q, k) = (Tensor::ones([1, 1, 16], option), Tensor::ones([1, 1, 3, 16], option));
    let _ = k.narrow(2, 1, 1).fill_(f64::NAN);
    let broken = decode_attention(&q, &k, &k, &Tensor::from_slice(&[0_i64])).unwrap().unwrap();
    assert!(broken.isnan().all().int64_value(&[]) == 1);
    let unseen = decode_attention(&q, &k, &k, &Tensor::from_slice(&[2_i64])).unwrap().unwrap();
    assert!(unseen.equal(&Tensor::ones([1, 1, 16], option)), "masked columns are not read");
}

#[test]
fn operands_of_attention_that_do_not_fit_are_errors() {
    let float = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let (q, k, first) = (float(&[2, 6, 32]), float(&[2, 3, 5, 32]), Tensor::from_slice(&[0_i64, 0]));
    let refused =
        |q: &Tensor, k: &Tensor, v: &Tensor, first: &Tensor| decode_attention(q, k, v, first).unwrap_err();
    let name = |error: TorchExtError| match error {
        TorchExtError::Shape { tensor, .. } | TorchExtError::Kind { tensor, .. } => tensor,
        error => panic!("{error}"),
    };
    assert_eq!(name(refused(&float(&[2, 32]), &k, &k, &first)), "the queries");
    for keys in [[1, 3, 5, 32], [2, 4, 5, 32], [2, 3, 0, 32], [2, 0, 5, 32], [2, 3, 5, 16]] {
        let keys = float(&keys);
        assert_eq!(name(refused(&q, &keys, &keys, &first)), "the keys");
    }
    assert_eq!(name(refused(&q, &k, &float(&[2, 3, 6, 32]), &first)), "the values");
    assert_eq!(name(refused(&q, &k.to_kind(Kind::BFloat16), &k, &first)), "the keys");
    assert_eq!(name(refused(&q, &k, &k, &Tensor::from_slice(&[0_i64]))), "the first columns");
    assert_eq!(name(refused(&q, &k, &k, &first.to_kind(Kind::Int))), "the first columns");
}

#[test]
fn attention_without_a_kernel_is_unsupported() {
    let float = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let first = Tensor::from_slice(&[0_i64, 0]);
    let is_unsupported = |q: &Tensor, k: &Tensor| decode_attention(q, k, k, &first).unwrap().is_none();
    let q = float(&[2, 6, 32]);
    assert!(!is_unsupported(&q, &float(&[2, 3, 5, 32])));
    assert!(is_unsupported(&q, &float(&[2, 3, 32, 5]).transpose(2, 3)));
    assert!(is_unsupported(&q, &float(&[2, 3, 1, 32]).expand([2, 3, 5, 32], false)));
    assert!(is_unsupported(&float(&[2, 6, 24]), &float(&[2, 3, 5, 24])));
    assert!(is_unsupported(&q.to_kind(Kind::Double), &float(&[2, 3, 5, 32]).to_kind(Kind::Double)));
}
