//! NF4 and moments in eight bits, against bitsandbytes' results (`fixtures/quantized.py`), and their preconditions.

mod common;

use std::path::Path;

use common::on_each_instruction_set;
use tch::{Device, Kind, Tensor};
use torch_ext::{
    AdamWUpdate, Moment8bit, Nf4, TorchExtError, dequantize_moment, fused_adamw_8bit, quantize_moment,
};

fn fixture(name: &str) -> Tensor {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/quantized.safetensors");
    let tensors = Tensor::read_safetensors(path).expect("the fixture");
    tensors.into_iter().find(|(found, _)| found == name).expect(name).1
}

#[test]
fn numbers_in_nf4_are_those_of_bitsandbytes() {
    on_each_instruction_set(|| {
        for name in ["partial", "weight", "odd"] {
            let quantized = Nf4::quantize(&fixture(name)).unwrap();
            for (kind, suffix) in [(Kind::Float, "float32"), (Kind::BFloat16, "bfloat16")] {
                let expected = fixture(&format!("{name}.{suffix}"));
                assert_eq!(quantized.dequantize(kind).unwrap(), expected, "{name} in {kind:?}");
            }
        }
    });
}

#[test]
fn nf4_takes_four_bits_and_an_eighth() {
    let weight = Tensor::ones([4096, 1024], (Kind::BFloat16, Device::Cpu));
    let bytes = Nf4::quantize(&weight).unwrap().bytes() as f64;
    // A half, 1/64 for the codes of scales, 4/(64 · 256) for theirs, and the offset.
    let expected = weight.numel() as f64 * (0.5 + 1.0 / 64.0 + 4.0 / (64.0 * 256.0)) + 4.0;
    assert_eq!(bytes, expected);
}

#[test]
fn moments_in_eight_bits_are_those_of_bitsandbytes() {
    for (name, is_signed) in [("signed", true), ("unsigned", false)] {
        let (codes, scales) = quantize_moment(&fixture(name), is_signed).unwrap();
        assert_eq!(codes, fixture(&format!("{name}.codes")), "{name}");
        let again = dequantize_moment(&codes, &scales, is_signed).unwrap();
        assert_eq!(again, fixture(&format!("{name}.again")), "{name}");
    }
}

const UPDATE: AdamWUpdate = AdamWUpdate {
    learning_rate: 0.01,
    betas: (0.9, 0.99),
    eps: 1e-8,
    weight_decay: 0.1,
    step: 1,
    gradient_scale: 1.0,
};

/// Codes and scales of both moments.
struct Moments {
    codes: [Tensor; 2],
    scales: [Tensor; 2],
}

impl Moments {
    fn zeros(count: i64) -> Self {
        let codes = || Tensor::zeros([count], (Kind::Uint8, Device::Cpu));
        let scales = || Tensor::zeros([(count + 255) / 256], (Kind::Float, Device::Cpu));
        Self { codes: [codes(), codes()], scales: [scales(), scales()] }
    }

    fn both(&mut self) -> [Moment8bit<'_>; 2] {
        let ([a, b], [c, d]) = (self.codes.each_mut(), self.scales.each_mut());
        [Moment8bit { codes: a, scales: c }, Moment8bit { codes: b, scales: d }]
    }
}

/// Relative to the size of a step.
const STEP_ERROR: f64 = 0.02;

#[test]
fn updates_of_any_length_follow_adamw_in_doubles() {
    on_each_instruction_set(|| {
        for count in [1, 15, 256, 1_003] {
            for kind in [Kind::Float, Kind::BFloat16] {
                let fixed = fixture("signed").narrow(0, 0, count.min(1000)).repeat([2]).narrow(0, 0, count);
                let mut weights = &fixed * 0.5;
                let mut copy = Tensor::zeros([count], (kind, Device::Cpu));
                let mut moments = Moments::zeros(count);
                let mut expected = weights.to_kind(Kind::Double);
                let (mut m, mut v) = (expected.zeros_like(), expected.zeros_like());
                for step in 1..=4 {
                    let gradient = (&fixed * 12.9898 + step as f64).sin();
                    let update = AdamWUpdate { step, ..UPDATE };
                    fused_adamw_8bit(&mut weights, &gradient, moments.both(), Some(&mut copy), &update)
                        .unwrap();
                    assert_eq!(copy, weights.to_kind(kind), "{count} numbers in {kind:?}");
                    let g = gradient.to_kind(Kind::Double);
                    (m, v) = (m * 0.9 + &g * 0.1, v * 0.99 + g.square() * 0.01);
                    let steps = step as i32;
                    let divisor = v.sqrt() / (1.0 - 0.99_f64.powi(steps)).sqrt() + 1e-8;
                    expected =
                        expected * (1.0 - 0.01 * 0.1) - &m / divisor * (0.01 / (1.0 - 0.9_f64.powi(steps)));
                }
                let error = (weights.to_kind(Kind::Double) - expected).abs().mean(Kind::Double);
                let error = error.double_value(&[]) / (4.0 * 0.01);
                assert!(error < STEP_ERROR, "{error} of {count} numbers");
            }
        }
    });
}

#[test]
fn operands_that_do_not_fit_are_errors_and_nothing_is_written() {
    let fresh = || Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]);
    let run = |gradient: Tensor, change: &dyn Fn(&mut Moments)| {
        let (mut weights, mut moments) = (fresh(), Moments::zeros(4));
        change(&mut moments);
        let error = fused_adamw_8bit(&mut weights, &gradient, moments.both(), None, &UPDATE)
            .expect_err("a wrong argument");
        assert_eq!(weights, fresh());
        error
    };
    let error = run(fresh().to_kind(Kind::Double), &|_| {});
    assert!(matches!(error, TorchExtError::Kind { tensor: "the gradient", .. }), "{error}");
    let error = run(fresh(), &|moments| moments.codes[1] = fresh());
    assert!(matches!(error, TorchExtError::Kind { tensor: "the codes of the second moment", .. }), "{error}");
    let error = run(fresh(), &|moments| moments.scales[0] = fresh());
    assert!(
        matches!(error, TorchExtError::Shape { tensor: "the scales of the first moment", .. }),
        "{error}"
    );
    let error = run(fresh(), &|moments| moments.codes[1] = moments.codes[0].shallow_clone());
    assert!(error.to_string().contains("share memory"), "{error}");
    let error = run(Tensor::from_slice(&[0f32; 8]).view([4, 2]).select(1, 0), &|_| {});
    assert!(matches!(error, TorchExtError::NotContiguous { .. }), "{error}");
    assert!(Nf4::quantize(&fresh()).unwrap().dequantize(Kind::Double).is_err());
}
