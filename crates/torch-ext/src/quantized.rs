//! Numbers in four and eight bits, with a scale for each block, in the formats of bitsandbytes.

use tch::{Device, Kind, TchError, Tensor};

use crate::check::{check_contiguous, check_kind, check_shape};
use crate::optimizer::shim_update;
use crate::{AdamWUpdate, TorchExtError, ffi};

/// The numbers of NF4 ([Dettmers et al. 2023](https://arxiv.org/abs/2305.14314), appendix E): quantiles of a normal distribution,
/// scaled to [-1, 1], with an exact zero.
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Numbers of NF4 that share a scale.
const NF4_BLOCK: i64 = 64;
/// Numbers of the dynamic code that share a scale.
const DYNAMIC_BLOCK: i64 = 256;
/// The least scale by which numbers are divided, as in bitsandbytes.
const LEAST_SCALE: f64 = 1e-38;

/// A tensor in NF4 with double quantization: four bits for a number, and eight bits for the scale of 64 numbers.
///
/// ```
/// use tch::{Kind, Tensor};
/// use torch_ext::Nf4;
///
/// let weight = Tensor::from_slice(&[1f32, -0.5, 0.0, 0.25]).view([2, 2]);
/// let quantized = Nf4::quantize(&weight)?;
/// let again = quantized.dequantize(Kind::Float)?;
/// // The largest number of a block and zero are exact.
/// assert_eq!(again.size(), [2, 2]);
/// assert_eq!((again.double_value(&[0, 0]), again.double_value(&[1, 0])), (1.0, 0.0));
/// assert!((again.double_value(&[0, 1]) + 0.525).abs() < 1e-3);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
#[derive(Debug)]
pub struct Nf4 {
    /// `[⌈n/2⌉]` uint8: two codes each, the first in the upper half.
    codes: Tensor,
    /// The scales of the blocks, less `offset`.
    scales: Dynamic,
    /// The mean of the scales, fp32.
    offset: Tensor,
    shape: Vec<i64>,
}

impl Nf4 {
    /// Quantizes a tensor: the codes, scales and offset are those of bitsandbytes' `quantize_4bit` with `quant_type="nf4"`,
    /// `blocksize=64` and `compress_statistics=True`.
    ///
    /// # Shapes
    /// Any, Float, `BFloat16` or Half.
    ///
    /// # Errors
    /// [`TorchExtError::Torch`] where memory is exhausted.
    pub fn quantize(x: &Tensor) -> Result<Self, TorchExtError> {
        let _guard = tch::no_grad_guard();
        let quantize = || {
            let flat = x.f_detach()?.f_reshape([-1])?.f_to_kind(Kind::Float)?;
            let (scaled, scales) = scaled(&flat, NF4_BLOCK)?;
            let codes = nearest(&scaled, &Tensor::from_slice(&NF4).f_to_device(x.device())?)?;
            // A code of zero after the last number, if their number is odd.
            let codes = codes.f_constant_pad_nd([0, codes.size()[0] % 2])?.f_view([-1, 2])?;
            let (first, second) = (codes.f_select(1, 0)?, codes.f_select(1, 1)?);
            let codes = first.f_mul_scalar(16)?.f_add(&second)?;
            let offset = scales.f_mean(Kind::Float)?;
            Ok((codes, Dynamic::quantize(&scales.f_sub(&offset)?, true)?, offset))
        };
        let (codes, scales, offset) = quantize().map_err(failed("quantize"))?;
        Ok(Self { codes, scales, offset, shape: x.size() })
    }

    /// Returns the numbers, in their shape, in `kind`.
    ///
    /// # Errors
    /// [`TorchExtError::Kind`] unless `kind` is Float or `BFloat16`; [`TorchExtError::Torch`] where memory is exhausted.
    pub fn dequantize(&self, kind: Kind) -> Result<Tensor, TorchExtError> {
        if !matches!(kind, Kind::Float | Kind::BFloat16) {
            return Err(TorchExtError::Kind { tensor: "the numbers", found: kind, expected: Kind::BFloat16 });
        }
        let _guard = tch::no_grad_guard();
        let scales = self.scales.dequantize().and_then(|scales| scales.f_add(&self.offset));
        let scales = scales.map_err(failed("dequantize"))?;
        let device = self.codes.device();
        if device != Device::Cpu {
            return self.dequantize_by_libtorch(&scales, kind).map_err(failed("dequantize"));
        }
        let mut out = Tensor::f_empty(&self.shape, (kind, device)).map_err(failed("dequantize"))?;
        ffi::call("dequantize", |message| {
            // SAFETY: all tensors are live and used during the call only; `out` is fresh, so that no other tensor shares its memory.
            // `NF4` has the 16 numbers that the shim reads. The shim checks kinds, shapes and layouts.
            unsafe {
                ffi::torch_ext_dequantize_nf4(
                    out.as_mut_ptr(),
                    self.codes.as_ptr(),
                    scales.as_ptr(),
                    NF4.as_ptr(),
                    message,
                )
            }
        })?;
        Ok(out)
    }

    /// As `dequantize`, on any device; `scales` has one number for each block.
    fn dequantize_by_libtorch(&self, scales: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
        let values = Tensor::from_slice(&NF4).f_to_device(self.codes.device())?;
        let (high, low) = (self.codes.f_floor_divide_scalar(16)?, self.codes.f_remainder(16)?);
        let codes = Tensor::f_stack(&[high, low], 1)?.f_view([-1])?.f_to_kind(Kind::Int)?;
        let count: i64 = self.shape.iter().product();
        let numbers = values.f_index_select(0, &codes)?.f_narrow(0, 0, count)?;
        by_block(&numbers, scales, NF4_BLOCK)?.f_to_kind(kind)?.f_view(self.shape.as_slice())
    }

    /// Returns the number of bytes in memory.
    pub fn bytes(&self) -> u64 {
        let Dynamic { codes, scales, .. } = &self.scales;
        [&self.codes, codes, scales, &self.offset].into_iter().map(bytes_of).sum()
    }
}

fn bytes_of(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

/// Numbers in the dynamic code ([Dettmers 2016](https://arxiv.org/abs/1511.04561)): eight bits each, and an fp32 scale for 256 of
/// them.
#[derive(Debug)]
struct Dynamic {
    codes: Tensor,
    scales: Tensor,
    /// The numbers of the codes.
    values: Tensor,
}

impl Dynamic {
    fn quantize(flat: &Tensor, is_signed: bool) -> Result<Self, TchError> {
        let values = dynamic_code(is_signed)?.f_to_device(flat.device())?;
        let (scaled, scales) = scaled(flat, DYNAMIC_BLOCK)?;
        Ok(Self { codes: nearest(&scaled, &values)?, scales, values })
    }

    fn dequantize(&self) -> Result<Tensor, TchError> {
        let numbers = self.values.f_index_select(0, &self.codes.f_to_kind(Kind::Int)?)?;
        by_block(&numbers, &self.scales, DYNAMIC_BLOCK)
    }
}

/// Returns the numbers of the dynamic code, in ascending order.
fn dynamic_code(is_signed: bool) -> Result<Tensor, TchError> {
    let mut values = [0f32; 256];
    let read = ffi::call("compute a code", |message| {
        // SAFETY: the shim writes 256 numbers.
        unsafe { ffi::torch_ext_dynamic_code(i32::from(is_signed), values.as_mut_ptr(), message) }
    });
    read.map_err(|error| TchError::Torch(error.to_string()))?;
    Tensor::f_from_slice(&values)
}

/// Returns the number of blocks, and of scales, of so many numbers in the dynamic code.
pub fn dynamic_blocks(count: i64) -> i64 {
    blocks(count, DYNAMIC_BLOCK)
}

/// Returns the number of blocks that cover `count` numbers.
fn blocks(count: i64, block: i64) -> i64 {
    count / block + i64::from(count % block != 0)
}

/// Returns the numbers divided by the largest magnitude of their block, and these magnitudes.
fn scaled(flat: &Tensor, block: i64) -> Result<(Tensor, Tensor), TchError> {
    let count = flat.size()[0];
    let rows = flat.f_constant_pad_nd([0, blocks(count, block) * block - count])?.f_view([-1, block])?;
    let scales = rows.f_abs()?.f_amax([1], false)?;
    let factors = scales.f_clamp_min(LEAST_SCALE)?.f_reciprocal()?.f_unsqueeze(1)?;
    let scaled = rows.f_mul(&factors)?.f_clamp(-1.0, 1.0)?.f_view([-1])?.f_narrow(0, 0, count)?;
    Ok((scaled, scales))
}

/// Returns the codes of the nearest of these ascending numbers, the lower one in the middle between two.
fn nearest(scaled: &Tensor, values: &Tensor) -> Result<Tensor, TchError> {
    let last = values.size()[0] - 1;
    let bounds = values.f_narrow(0, 0, last)?.f_add(&values.f_narrow(0, 1, last)?)?.f_div_scalar(2.0)?;
    scaled.f_bucketize(&bounds, true, false)?.f_to_kind(Kind::Uint8)
}

/// Multiplies each number by the scale of its block.
fn by_block(numbers: &Tensor, scales: &Tensor, block: i64) -> Result<Tensor, TchError> {
    let count = numbers.size()[0];
    let padded = numbers.f_constant_pad_nd([0, scales.size()[0] * block - count])?.f_view([-1, block])?;
    padded.f_mul(&scales.f_unsqueeze(1)?)?.f_view([-1])?.f_narrow(0, 0, count)
}

fn failed(what: &'static str) -> impl Fn(TchError) -> TorchExtError {
    move |error| TorchExtError::Torch { what, message: error.to_string() }
}

/// A moment of `AdamW` in the dynamic code: codes `[n]` uint8, and fp32 scales `[⌈n/256⌉]`, which start at zero.
#[derive(Debug)]
pub struct Moment8bit<'a> {
    /// The codes.
    pub codes: &'a mut Tensor,
    /// The scales.
    pub scales: &'a mut Tensor,
}

/// Computes one `AdamW` update as [`fused_adamw`](crate::fused_adamw), with moments in eight bits
/// ([Dettmers et al. 2022](https://arxiv.org/abs/2110.02861)): the code of the first has a sign, that of the second has none. The
/// update itself is computed in fp32, with the moments before they are rounded. A positive second moment is never rounded to
/// zero, which would leave a first moment divided by ε.
///
/// ```
/// use tch::{Kind, Tensor};
/// use torch_ext::{AdamWUpdate, Moment8bit, fused_adamw_8bit};
///
/// let (mut weights, gradient) = (Tensor::from_slice(&[1f32, -2.0]), Tensor::from_slice(&[0.5f32, -4.0]));
/// let codes = || Tensor::zeros([2], (Kind::Uint8, weights.device()));
/// let scales = || Tensor::zeros([1], (Kind::Float, weights.device()));
/// let ([mut a, mut b], [mut c, mut d]) = ([codes(), codes()], [scales(), scales()]);
/// let moments = [Moment8bit { codes: &mut a, scales: &mut c }, Moment8bit { codes: &mut b, scales: &mut d }];
/// let update = AdamWUpdate {
///     learning_rate: 0.1, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, step: 1, gradient_scale: 1.0,
/// };
/// fused_adamw_8bit(&mut weights, &gradient, moments, None, &update)?;
/// assert!((weights.double_value(&[0]) - 0.9).abs() < 1e-6);
/// assert!((weights.double_value(&[1]) + 1.9).abs() < 1e-6);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// One dimension; weights and gradient Float, `copy` Float or `BFloat16`; contiguous, on one device, disjoint in memory.
///
/// # Errors
/// As [`fused_adamw`](crate::fused_adamw).
pub fn fused_adamw_8bit(
    weights: &mut Tensor,
    gradient: &Tensor,
    moments: [Moment8bit<'_>; 2],
    copy: Option<&mut Tensor>,
    update: &AdamWUpdate,
) -> Result<(), TorchExtError> {
    check(weights, gradient, &moments, copy.as_deref())?;
    let [first, second] = moments;
    if weights.device() != Device::Cpu {
        let updated = update_by_libtorch(weights, gradient, [&first, &second], update);
        updated.map_err(failed("update weights"))?;
        if let Some(copy) = copy {
            tch::no_grad(|| copy.copy_(weights));
        }
        return Ok(());
    }
    let update = shim_update(update);
    let copy = copy.map_or(std::ptr::null_mut(), Tensor::as_mut_ptr);
    ffi::call("update weights", |message| {
        // SAFETY: all pointers but a null `copy` come from live references and are used during the call only. The shim checks
        // kinds, shapes, layouts and overlaps before it reads memory.
        unsafe {
            ffi::torch_ext_adamw_8bit(
                weights.as_mut_ptr(),
                gradient.as_ptr(),
                first.codes.as_mut_ptr(),
                second.codes.as_mut_ptr(),
                first.scales.as_mut_ptr(),
                second.scales.as_mut_ptr(),
                copy,
                &raw const update,
                message,
            )
        }
    })
}

fn check(
    weights: &Tensor,
    gradient: &Tensor,
    [first, second]: &[Moment8bit<'_>; 2],
    copy: Option<&Tensor>,
) -> Result<(), TorchExtError> {
    check_kind("the weights", weights, Kind::Float)?;
    let count = weights.numel() as i64;
    check_shape("the weights", weights, &[count])?;
    check_kind("the gradient", gradient, Kind::Float)?;
    check_shape("the gradient", gradient, &[count])?;
    for (name, codes) in
        [("the codes of the first moment", &*first.codes), ("the codes of the second moment", &*second.codes)]
    {
        check_kind(name, codes, Kind::Uint8)?;
        check_shape(name, codes, &[count])?;
    }
    for (name, scales) in [
        ("the scales of the first moment", &*first.scales),
        ("the scales of the second moment", &*second.scales),
    ] {
        check_kind(name, scales, Kind::Float)?;
        check_shape(name, scales, &[dynamic_blocks(count)])?;
    }
    if let Some(copy) = copy {
        if check_kind("the copy", copy, Kind::BFloat16).is_err() {
            check_kind("the copy", copy, Kind::Float)?;
        }
        check_shape("the copy", copy, &[count])?;
    }
    let expected = weights.device();
    let operands = [weights, gradient, first.codes, second.codes, first.scales, second.scales];
    for given in operands.into_iter().chain(copy) {
        let found = given.device();
        if found != expected {
            return Err(TorchExtError::Device { tensor: "a tensor of AdamW", found, expected });
        }
        check_contiguous("a tensor of AdamW", given)?;
    }
    Ok(())
}

/// As the kernel, on any device.
fn update_by_libtorch(
    weights: &Tensor,
    gradient: &Tensor,
    [first, second]: [&Moment8bit<'_>; 2],
    update: &AdamWUpdate,
) -> Result<(), TchError> {
    let _guard = tch::no_grad_guard();
    let AdamWUpdate { learning_rate, betas: (beta1, beta2), eps, weight_decay, step, gradient_scale } =
        *update;
    let device = weights.device();
    let moment = |moment: &Moment8bit<'_>, is_signed: bool| {
        let values = dynamic_code(is_signed)?.f_to_device(device)?;
        let (codes, scales) = (moment.codes.shallow_clone(), moment.scales.shallow_clone());
        Dynamic { codes, scales, values }.dequantize()
    };
    let gradient = gradient.f_mul_scalar(gradient_scale)?;
    let m = moment(first, true)?.f_mul_scalar(beta1)?.f_add(&gradient.f_mul_scalar(1.0 - beta1)?)?;
    let v = moment(second, false)?
        .f_mul_scalar(beta2)?
        .f_add(&gradient.f_square()?.f_mul_scalar(1.0 - beta2)?)?;
    let steps = step as f64;
    let correction = (1.0 - beta2.powf(steps)).sqrt();
    let divisor = v.f_sqrt()?.f_div_scalar(correction)?.f_add_scalar(eps)?;
    let change = m.f_div(&divisor)?.f_mul_scalar(learning_rate / (1.0 - beta1.powf(steps)))?;
    let mut weights = weights.shallow_clone();
    let _ = weights.f_mul_scalar_(1.0 - learning_rate * weight_decay)?.f_sub_(&change)?;
    let store = |moment: &Moment8bit<'_>, numbers: &Tensor, is_signed: bool| {
        let Dynamic { codes, scales, .. } = Dynamic::quantize(numbers, is_signed)?;
        let least = if is_signed { 0 } else { 1 };
        let codes = codes.f_where_self(&numbers.f_le(0.0)?, &codes.f_clamp_min(least)?)?;
        moment.codes.shallow_clone().f_copy_(&codes)?;
        moment.scales.shallow_clone().f_copy_(&scales)
    };
    store(first, &m, true)?;
    store(second, &v, false)
}

/// Returns the numbers of a moment in the dynamic code, fp32.
///
/// # Shapes
/// As in [`Moment8bit`]; returns `[n]`.
///
/// # Errors
/// [`TorchExtError::Torch`] where memory is exhausted or the shapes do not fit.
pub fn dequantize_moment(codes: &Tensor, scales: &Tensor, is_signed: bool) -> Result<Tensor, TorchExtError> {
    let dequantize = || {
        let values = dynamic_code(is_signed)?.f_to_device(codes.device())?;
        Dynamic { codes: codes.shallow_clone(), scales: scales.shallow_clone(), values }.dequantize()
    };
    tch::no_grad(dequantize).map_err(failed("dequantize"))
}

/// Returns the codes and scales of the numbers of a moment, the reverse of [`dequantize_moment`].
///
/// # Errors
/// [`TorchExtError::Torch`] where memory is exhausted.
pub fn quantize_moment(numbers: &Tensor, is_signed: bool) -> Result<(Tensor, Tensor), TorchExtError> {
    let quantized = tch::no_grad(|| Dynamic::quantize(numbers, is_signed)).map_err(failed("quantize"))?;
    Ok((quantized.codes, quantized.scales))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: i64, seed: f64) -> Tensor {
        let at = Tensor::arange(count, (Kind::Double, Device::Cpu)) + seed;
        ((at * 12.9898).sin() * 43_758.545_3).frac().to_kind(Kind::Float)
    }

    #[test]
    fn the_kernel_and_libtorch_dequantize_alike() {
        // Whole blocks, part of a block, part of a vector, an odd number.
        for count in [640, 100, 33, 1] {
            let quantized = Nf4::quantize(&numbers(count, 0.5)).unwrap();
            let scales = quantized.scales.dequantize().unwrap() + &quantized.offset;
            for kind in [Kind::Float, Kind::BFloat16] {
                let expected = quantized.dequantize_by_libtorch(&scales, kind).unwrap();
                assert_eq!(quantized.dequantize(kind).unwrap(), expected, "{count} numbers in {kind:?}");
            }
        }
    }

    #[test]
    fn the_kernel_and_libtorch_update_alike() {
        /// Absolute, for steps of 0.01: a code apart is a few percent of a moment.
        const TOLERANCE: f64 = 1e-3;
        let count = 1_000;
        let after = |by_kernel: bool| {
            let mut weights = numbers(count, 0.1);
            let codes = || Tensor::zeros([count], (Kind::Uint8, Device::Cpu));
            let scales = || Tensor::zeros([4], (Kind::Float, Device::Cpu));
            let ([mut a, mut b], [mut c, mut d]) = ([codes(), codes()], [scales(), scales()]);
            for step in 1..=3 {
                let update = AdamWUpdate {
                    learning_rate: 0.01,
                    betas: (0.9, 0.99),
                    eps: 1e-8,
                    weight_decay: 0.1,
                    step,
                    gradient_scale: 0.5,
                };
                let gradient = numbers(count, 0.2 + step as f64);
                let first = Moment8bit { codes: &mut a, scales: &mut c };
                let second = Moment8bit { codes: &mut b, scales: &mut d };
                match by_kernel {
                    true => {
                        fused_adamw_8bit(&mut weights, &gradient, [first, second], None, &update).unwrap()
                    }
                    false => update_by_libtorch(&weights, &gradient, [&first, &second], &update).unwrap(),
                }
            }
            (weights, [a, b])
        };
        let ((weights, codes), (expected, expected_codes)) = (after(true), after(false));
        // A number in the middle between two is rounded either way, which later updates see.
        let difference = (weights - expected).abs().max().double_value(&[]);
        assert!(difference < TOLERANCE, "{difference}");
        for (codes, expected) in codes.iter().zip(&expected_codes) {
            let apart = (codes.to_kind(Kind::Int) - expected.to_kind(Kind::Int)).abs();
            assert!(apart.max().int64_value(&[]) <= 1);
            assert!(apart.count_nonzero(None::<i64>).int64_value(&[]) <= count / 100);
        }
    }

    #[test]
    fn a_positive_second_moment_is_not_rounded_to_zero() {
        let mut weights = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        let codes = || Tensor::zeros([2], (Kind::Uint8, Device::Cpu));
        let scales = || Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let ([mut a, mut b], [mut c, mut d]) = ([codes(), codes()], [scales(), scales()]);
        let gradient = Tensor::from_slice(&[1f32, 1e-6]);
        let update = AdamWUpdate {
            learning_rate: 0.1,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            step: 1,
            gradient_scale: 1.0,
        };
        for gradient in [&gradient, &gradient.zeros_like()] {
            let first = Moment8bit { codes: &mut a, scales: &mut c };
            let second = Moment8bit { codes: &mut b, scales: &mut d };
            fused_adamw_8bit(&mut weights, gradient, [first, second], None, &update).unwrap();
        }
        let changes = Vec::<f32>::try_from(weights).unwrap();
        assert!(changes.iter().all(|change| change.abs() < 0.3), "{changes:?}");
    }
}
