//! Collectives that own their tensors.

use tch::Tensor;

use super::ffi::WorkHandle;
use super::group::{ProcessGroup, ReduceOp};
use crate::TorchExtError;

/// A collective that has started and owns its tensors, for work that outlives a [`Scope`](super::Scope).
///
/// If it is dropped, libtorch releases the tensors once the collective has ended.
///
/// ```
/// # use std::time::Duration;
/// # use tch::{Kind, Tensor, Device};
/// # use torch_ext::distributed::{ProcessGroup, Rank, Store};
/// # let timeout = Duration::from_secs(10);
/// # let store = Store::serve("127.0.0.1", 0, timeout)?;
/// # let group = ProcessGroup::gloo(&store, "example", Rank::ALONE, timeout)?;
/// let options = (Kind::Float, Device::Cpu);
/// let gather = group.begin_all_gather(Tensor::zeros([4], options), Tensor::ones([4], options))?;
/// assert_eq!(group.complete(gather)?, Tensor::ones([4], options));
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
#[derive(Debug)]
pub struct InFlight {
    work: WorkHandle,
    output: Tensor,
    /// Read until the collective has ended.
    _input: Tensor,
}

impl ProcessGroup {
    /// Starts [`ProcessGroup::all_gather`].
    ///
    /// # Errors
    ///
    /// The errors of its start.
    pub fn begin_all_gather(&self, mut output: Tensor, input: Tensor) -> Result<InFlight, TorchExtError> {
        let work = self.start_all_gather(&mut output, &input)?;
        Ok(InFlight { work, output, _input: input })
    }

    /// Starts [`ProcessGroup::reduce_scatter`].
    ///
    /// # Errors
    ///
    /// The errors of its start.
    pub fn begin_reduce_scatter(
        &self,
        mut output: Tensor,
        input: Tensor,
        operation: ReduceOp,
    ) -> Result<InFlight, TorchExtError> {
        let work = self.start_reduce_scatter(&mut output, &input, operation)?;
        Ok(InFlight { work, output, _input: input })
    }

    /// Blocks until a collective of this group has ended, and returns its output.
    ///
    /// # Errors
    ///
    /// Those of the collective.
    pub fn complete(&self, in_flight: InFlight) -> Result<Tensor, TorchExtError> {
        self.finish(&in_flight.work)?;
        Ok(in_flight.output)
    }
}
