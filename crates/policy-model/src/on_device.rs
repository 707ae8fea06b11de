//! Conversion of numbers to a tensor on the policy's device.

use tch::kind::Element;
use tch::{Device, Tensor};

/// Returns a tensor `[values]` on `device`.
///
/// For a GPU the copy is asynchronous, through pinned memory: this function returns at once, and later operations on the GPU's
/// stream see the result. libtorch does not reuse the pinned memory before the copy has ended.
///
/// ```
/// use tch::{Device, Kind};
///
/// let ids = policy_model::on_device(&[4i64, 5, 6], Device::Cpu);
/// assert_eq!((ids.size(), ids.kind(), ids.device()), (vec![3], Kind::Int64, Device::Cpu));
/// ```
pub fn on_device<T: Element>(values: &[T], device: Device) -> Tensor {
    let here = Tensor::from_slice(values);
    if device.is_cuda() {
        let (non_blocking, copy) = (true, false);
        return here.pin_memory(device).to_device_(device, here.kind(), non_blocking, copy);
    }
    if device == Device::Cpu { here } else { here.to_device(device) }
}
