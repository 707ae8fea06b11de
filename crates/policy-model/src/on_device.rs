//! From plain numbers to a tensor where the policy computes.

use tch::kind::Element;
use tch::{Device, Tensor};

/// A tensor `[values]` on `device`.
///
/// For a GPU the numbers go through pinned memory, and the copy is one of the operations that lie in wait there: this thread goes
/// on, and whatever reads the tensor on the GPU comes behind it. The pinned memory is libtorch's, which does not give it to
/// anybody else before the copy is made.
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
