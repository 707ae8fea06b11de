//! Dropout of adapters, with masks that do not depend on the batch.

use std::sync::Arc;

use tch::{Device, Tensor};

use crate::on_device::on_device;

/// The dropout of one forward pass.
///
/// A mask is a function of the seed, the module's name and the token's key. Micro-batches, ranks, layouts and recomputed layers
/// therefore have the same masks.
#[derive(Clone, Debug)]
pub struct AdapterDropout {
    seed: u64,
    keys: Arc<[u64]>,
}

impl AdapterDropout {
    /// Creates the dropout of tokens with these keys, in the order of the rows' ids, padding included.
    pub fn new(seed: u64, keys: Vec<u64>) -> Self {
        Self { seed, keys: keys.into() }
    }

    /// Returns the dropout of the tokens at the indices `selected` `[M]`.
    pub(crate) fn select(&self, selected: &Tensor) -> Self {
        let indices = Vec::<i64>::try_from(selected).expect("indices of tokens are one-dimensional i64");
        Self { seed: self.seed, keys: indices.into_iter().map(|index| self.keys[index as usize]).collect() }
    }
}

/// The dropout of one module's input ([Srivastava et al. 2014](https://jmlr.org/papers/v15/srivastava14a.html)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModuleDropout {
    /// A hash of the module's name.
    module: u64,
    /// The probability of an element to be dropped, in (0, 1).
    probability: f64,
}

impl ModuleDropout {
    /// Creates the dropout of `module`; `None` for probability 0.
    pub(crate) fn new(module: &str, probability: f64) -> Option<Self> {
        // FNV-1a.
        let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let module = module.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
        (probability > 0.0).then_some(Self { module, probability })
    }

    /// Returns the factors `[N, width]` of the elements of `x` `[N, width]`, in its kind: 0 or 1 / (1 − probability).
    pub(crate) fn mask(self, of: &AdapterDropout, x: &Tensor) -> Tensor {
        let seed = mix64(of.seed ^ self.module);
        let rows = of.keys.iter().map(|key| (mix64(key ^ seed) >> 32) as u32);
        let columns = (0..x.size()[1] as u32).map(|column| mix32(column + 1));
        let least = (self.probability * f64::from(u32::MAX)) as u32;
        let kept = (1.0 / (1.0 - self.probability)) as f32;
        match x.device() {
            Device::Cpu => mask_here(rows, &columns.collect::<Vec<u32>>(), least, kept).to_kind(x.kind()),
            device => mask_on(device, rows, columns, least).to_kind(x.kind()) * f64::from(kept),
        }
    }
}

fn mask_here(rows: impl ExactSizeIterator<Item = u32>, columns: &[u32], least: u32, kept: f32) -> Tensor {
    let shape = [rows.len() as i64, columns.len() as i64];
    let factor = |bits: u32| if mix32(bits) >= least { kept } else { 0.0 };
    let mut mask = Vec::with_capacity(rows.len() * columns.len());
    rows.for_each(|row| mask.extend(columns.iter().map(|column| factor(row ^ column))));
    Tensor::from_slice(&mask).view(shape)
}

/// As [`mask_here`], true where an element is kept. Computes on the device, where a copy would take longer.
fn mask_on(
    device: Device,
    rows: impl Iterator<Item = u32>,
    columns: impl Iterator<Item = u32>,
    least: u32,
) -> Tensor {
    let wide =
        |bits: &mut dyn Iterator<Item = u32>| on_device(&bits.map(i64::from).collect::<Vec<i64>>(), device);
    let [rows, columns] = [wide(&mut { rows }).unsqueeze(1), wide(&mut { columns })];
    let shifted = |x: &Tensor, by: i64| x.bitwise_xor_tensor(&x.bitwise_right_shift_tensor_scalar(by));
    let times = |x: &Tensor, by: u32| (x * i64::from(by)).bitwise_and(i64::from(u32::MAX));
    let [first, second] = FACTORS;
    let bits = shifted(&rows.bitwise_xor_tensor(&columns), 16);
    let bits = shifted(&times(&bits, first), 15);
    shifted(&times(&bits, second), 16).ge(i64::from(least))
}

/// The constants of [`mix32`].
const FACTORS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

/// A bijection without visible structure: `lowbias32` of Wellons' hash prospector.
fn mix32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(FACTORS[0]);
    x = (x ^ (x >> 15)).wrapping_mul(FACTORS[1]);
    x ^ (x >> 16)
}

/// The finalizer of `SplitMix64`.
fn mix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    fn mask(module: &str, probability: f64, keys: Vec<u64>, width: i64) -> Vec<f32> {
        let x = Tensor::zeros([keys.len() as i64, width], (Kind::Float, Device::Cpu));
        let of = AdapterDropout::new(9, keys);
        let mask = ModuleDropout::new(module, probability).unwrap().mask(&of, &x);
        Vec::try_from(mask.view(-1)).unwrap()
    }

    #[test]
    fn the_device_computes_the_mask_of_the_processor() {
        let (rows, columns) = ([0, 7, u32::MAX, 0x8000_0001], (0..300).map(mix32).collect::<Vec<u32>>());
        for least in [1, 1 << 20, 1 << 31, u32::MAX - 9] {
            let here = mask_here(rows.into_iter(), &columns, least, 1.0).to_kind(Kind::Bool);
            let there = mask_on(Device::Cpu, rows.into_iter(), columns.iter().copied(), least);
            assert!(here.equal(&there), "{least}");
        }
    }

    #[test]
    fn masks_have_their_probability_and_no_correlation() {
        let (tokens, width) = (2000, 50);
        let count = (tokens * width) as f64;
        for probability in [0.05, 0.3, 0.9] {
            let kept = (1.0 / (1.0 - probability)) as f32;
            let one = mask("model.layers.0.q_proj", probability, (0..tokens).collect(), width as i64);
            let other = mask("model.layers.1.q_proj", probability, (0..tokens).collect(), width as i64);
            assert!(one.iter().all(|&factor| factor == 0.0 || factor == kept));
            let share =
                |of: &dyn Fn(usize) -> bool| (0..one.len()).filter(|&at| of(at)).count() as f64 / count;
            let four_errors = |p: f64| 4.0 * (p * (1.0 - p) / count).sqrt();
            let dropped = share(&|at| one[at] == 0.0);
            assert!((dropped - probability).abs() < four_errors(probability), "{dropped}");
            let both = probability * probability;
            let neighbors = share(&|at| one[at] == 0.0 && one[(at + 1) % one.len()] == 0.0);
            let below = share(&|at| one[at] == 0.0 && one[(at + width as usize) % one.len()] == 0.0);
            let modules = share(&|at| one[at] == 0.0 && other[at] == 0.0);
            for found in [neighbors, below, modules] {
                assert!((found - both).abs() < four_errors(both), "{found} instead of {both}");
            }
        }
    }

    #[test]
    fn a_token_has_its_mask_in_every_batch() {
        let all = mask("q_proj", 0.5, vec![4, 5, 6], 8);
        assert_eq!(mask("q_proj", 0.5, vec![6], 8), all[16..]);
        assert_eq!(mask("q_proj", 0.5, vec![5, 4], 8)[..8], all[8..16]);
        let some = AdapterDropout::new(9, vec![4, 5, 6]).select(&Tensor::from_slice(&[2_i64, 0]));
        assert_eq!(*some.keys, [6, 4]);
        assert!(ModuleDropout::new("q_proj", 0.0).is_none());
    }
}
