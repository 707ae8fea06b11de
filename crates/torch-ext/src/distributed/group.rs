//! Process groups and their collectives.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use super::agreement::Agreement;
use super::ffi::{self, GroupHandle, WorkHandle};
use super::rank::Rank;
use super::store::{Store, milliseconds};
use crate::TorchExtError;
use crate::check::check_contiguous;
use crate::ffi::{Message, call};

/// The operation of a reduction over ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// The sum.
    Sum,
    /// The product.
    Product,
    /// The minimum.
    Min,
    /// The maximum.
    Max,
}

impl ReduceOp {
    /// Returns its number in c10d.
    fn code(self) -> u8 {
        match self {
            Self::Sum => 0,
            Self::Product => 2,
            Self::Min => 3,
            Self::Max => 4,
        }
    }
}

/// The communication library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Gloo,
    #[cfg(feature = "nccl")]
    Nccl,
}

impl Backend {
    fn supports(self, device: Device) -> bool {
        match self {
            Self::Gloo => device == Device::Cpu,
            #[cfg(feature = "nccl")]
            Self::Nccl => device.is_cuda(),
        }
    }

    /// Returns a description of the supported devices.
    fn devices(self) -> &'static str {
        match self {
            Self::Gloo => "the CPU",
            #[cfg(feature = "nccl")]
            Self::Nccl => "GPUs",
        }
    }
}

/// A group of processes (or threads) that call the same collectives on tensors of the same sizes.
///
/// A call returns when all ranks have made it, or with an error within the timeout. After an error the group is unusable: later
/// calls return [`TorchExtError::Unusable`], and the other ranks receive the reason.
///
/// Calls of several threads follow one another. Their order must be the same on all ranks, which is up to the caller.
///
/// ```
/// use std::time::Duration;
/// use tch::Tensor;
/// use torch_ext::distributed::{ProcessGroup, Rank, ReduceOp, Store};
///
/// let timeout = Duration::from_secs(10);
/// let store = Store::serve("127.0.0.1", 0, timeout)?;
/// let port = store.port();
/// let sum = move |rank: u16, store: Store| {
///     let group = ProcessGroup::gloo(&store, "example", Rank::new(rank, 2)?, timeout)?;
///     let mut tensor = Tensor::from_slice(&[f32::from(rank), 10.0]);
///     group.all_reduce(&mut tensor, ReduceOp::Sum)?;
///     Ok::<_, torch_ext::TorchExtError>(Vec::<f32>::try_from(&tensor).expect("one dimension of f32"))
/// };
/// let other = std::thread::spawn(move || sum(1, Store::connect("127.0.0.1", port, timeout)?));
/// assert_eq!(sum(0, store)?, [1.0, 20.0]);
/// assert_eq!(other.join().expect("no panic")?, [1.0, 20.0]);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
#[derive(Debug)]
pub struct ProcessGroup {
    handle: Arc<GroupHandle>,
    backend: Backend,
    rank: Rank,
    agreement: Agreement,
    /// The first error, after which the group is unusable; also set by abort handles.
    failure: Arc<Mutex<Option<String>>>,
    /// Held by each call, so that calls of several threads follow one another.
    turn: Mutex<()>,
}

impl ProcessGroup {
    /// Joins the group `name` over TCP, for tensors on the CPU. Blocks until all ranks have joined.
    ///
    /// Each rank listens on its machine's address that faces the store. `timeout` limits this call and each collective.
    ///
    /// # Errors
    ///
    /// [`TorchExtError::WorldSizeMismatch`], [`TorchExtError::RankTwice`], [`TorchExtError::RanksMissing`],
    /// [`TorchExtError::OtherRank`] with the error of another rank.
    pub fn gloo(store: &Store, name: &str, rank: Rank, timeout: Duration) -> Result<Self, TorchExtError> {
        let address = store.own_address()?;
        Self::join(store, name, rank, timeout, Backend::Gloo, move |store, name, rank, out, message| {
            let (name, address) = (ffi::Bytes::of(name.as_bytes()), ffi::Bytes::of(address.as_bytes()));
            // SAFETY: store, name, address and `out` outlive the call.
            unsafe {
                let timeout = milliseconds(timeout);
                ffi::torch_ext_group_gloo(store, name, rank, address, timeout, out, message)
            }
        })
    }

    /// Joins the group `name` over NCCL, for tensors on GPUs, one per rank. Blocks until all ranks have joined. The errors are those
    /// of [`gloo`](Self::gloo).
    ///
    /// A timeout of a collective ends the process: c10d's watchdog prevents a GPU from hanging that way.
    ///
    /// # Errors
    ///
    /// As [`gloo`](Self::gloo); [`TorchExtError::Torch`] where there is no GPU.
    #[cfg(feature = "nccl")]
    pub fn nccl(store: &Store, name: &str, rank: Rank, timeout: Duration) -> Result<Self, TorchExtError> {
        Self::join(store, name, rank, timeout, Backend::Nccl, move |store, name, rank, out, message| {
            let (name, timeout) = (ffi::Bytes::of(name.as_bytes()), milliseconds(timeout));
            // SAFETY: store, name and `out` outlive the call.
            unsafe { ffi::torch_ext_group_nccl(store, name, rank, timeout, out, message) }
        })
    }

    fn join(
        store: &Store,
        name: &str,
        rank: Rank,
        timeout: Duration,
        backend: Backend,
        make: impl FnOnce(*mut ffi::CStore, &str, ffi::Rank, *mut *mut ffi::CGroup, Message) -> i32
        + Send
        + 'static,
    ) -> Result<Self, TorchExtError> {
        let store = store.named(name);
        let agreement = Agreement::join(store.clone(), rank, timeout)?;
        let ranks = ffi::Rank { index: rank.index() as i32, world_size: rank.world_size() as i32 };
        let prefix = store.key("c10d");
        let connect = "connect the ranks";
        let group = store.with_handle(connect, 2 * timeout, move |handle| {
            let mut out = std::ptr::null_mut();
            call(connect, |message| make(handle.as_ptr(), &prefix, ranks, &raw mut out, message))?;
            Ok(GroupHandle::new(out))
        });
        let handle = Arc::new(group.inspect_err(|error| agreement.give_up(error))?);
        let failure = Arc::default();
        Ok(Self { handle, backend, rank, agreement, failure, turn: Mutex::default() })
    }

    /// Returns the rank of this process.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Replaces `tensor` on each rank by the elementwise reduction over all ranks.
    ///
    /// The result is bitwise identical on all ranks, but not to a sum in another order, such as over another number of ranks.
    ///
    /// # Errors
    ///
    /// An unsupported tensor, or ranks that call different collectives ([`TorchExtError::Disagreement`]): nothing is sent then. A
    /// timeout or a lost connection: the tensor's values are undefined then.
    pub fn all_reduce(&self, tensor: &mut Tensor, operation: ReduceOp) -> Result<(), TorchExtError> {
        let work = self.start_all_reduce(tensor, operation)?;
        self.finish(&work)
    }

    /// Reduces `input` over all ranks, and stores the elements `r · n` to `(r + 1) · n` in the `output` of rank `r`, where `n` is
    /// the size of `output`.
    ///
    /// # Errors
    ///
    /// [`TorchExtError::PartSize`] unless `input` is `world_size` times as large as `output`; as
    /// [`all_reduce`](Self::all_reduce).
    pub fn reduce_scatter(
        &self,
        output: &mut Tensor,
        input: &Tensor,
        operation: ReduceOp,
    ) -> Result<(), TorchExtError> {
        let work = self.start_reduce_scatter(output, input, operation)?;
        self.finish(&work)
    }

    /// Concatenates the `input` of all ranks, in their order, in the `output` of each rank.
    ///
    /// # Errors
    ///
    /// [`TorchExtError::PartSize`] unless `output` is `world_size` times as large as `input`; as
    /// [`all_reduce`](Self::all_reduce).
    pub fn all_gather(&self, output: &mut Tensor, input: &Tensor) -> Result<(), TorchExtError> {
        let work = self.start_all_gather(output, input)?;
        self.finish(&work)
    }

    /// Replaces `tensor` on each rank by that of rank `root`.
    ///
    /// # Errors
    ///
    /// [`TorchExtError::NoSuchRank`]; as [`all_reduce`](Self::all_reduce).
    pub fn broadcast(&self, tensor: &mut Tensor, root: usize) -> Result<(), TorchExtError> {
        let work = self.start_broadcast(tensor, root)?;
        self.finish(&work)
    }

    /// Blocks until every rank reaches the barrier.
    ///
    /// # Errors
    ///
    /// As [`all_reduce`](Self::all_reduce).
    pub fn barrier(&self) -> Result<(), TorchExtError> {
        // SAFETY: the group outlives the call.
        let work = self.start("wait at a barrier", "barrier", |group, out, message| unsafe {
            ffi::torch_ext_barrier(group, out, message)
        })?;
        self.finish(&work)
    }

    /// Returns a handle that [aborts](AbortHandle::abort) the group from any thread.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle { group: Arc::downgrade(&self.handle), failure: self.failure.clone() }
    }

    /// Reports a failure of this rank to the others, and closes its connections: their calls fail at once, with `reason`. The first
    /// reported failure of a group is kept.
    pub fn give_up(&self, reason: &str) {
        self.agreement.give_up_because(reason);
        self.abort_handle().abort(reason);
    }

    pub(crate) fn start_all_reduce(
        &self,
        tensor: &mut Tensor,
        operation: ReduceOp,
    ) -> Result<WorkHandle, TorchExtError> {
        self.check("the tensor", tensor)?;
        let described = format!("all-reduce ({operation:?}) of {}", describe(tensor));
        let tensor = tensor.as_mut_ptr();
        // SAFETY: group and tensor outlive the call; the work holds its own handles.
        self.start("all-reduce", &described, |group, out, message| unsafe {
            ffi::torch_ext_all_reduce(group, tensor, operation.code(), out, message)
        })
    }

    pub(crate) fn start_reduce_scatter(
        &self,
        output: &mut Tensor,
        input: &Tensor,
        operation: ReduceOp,
    ) -> Result<WorkHandle, TorchExtError> {
        self.check_parts(("the input", input), ("the output", output))?;
        let described = format!("reduce-scatter ({operation:?}) of {}", describe(input));
        // Flat, since libtorch splits along the first dimension.
        let (output, input) = (output.view(-1), input.view(-1));
        // SAFETY: group and tensors outlive the call; the work holds its own handles, and only reads the input.
        self.start("reduce-scatter", &described, |group, out, message| unsafe {
            let (output, input) = (output.as_ptr().cast_mut(), input.as_ptr().cast_mut());
            ffi::torch_ext_reduce_scatter(group, output, input, operation.code(), out, message)
        })
    }

    pub(crate) fn start_all_gather(
        &self,
        output: &mut Tensor,
        input: &Tensor,
    ) -> Result<WorkHandle, TorchExtError> {
        self.check_parts(("the output", output), ("the input", input))?;
        let described = format!("all-gather of {}", describe(input));
        let (output, input) = (output.view(-1), input.view(-1));
        // SAFETY: group and tensors outlive the call; the work holds its own handles, and only reads the input.
        self.start("all-gather", &described, |group, out, message| unsafe {
            let (output, input) = (output.as_ptr().cast_mut(), input.as_ptr().cast_mut());
            ffi::torch_ext_all_gather(group, output, input, out, message)
        })
    }

    pub(crate) fn start_broadcast(
        &self,
        tensor: &mut Tensor,
        root: usize,
    ) -> Result<WorkHandle, TorchExtError> {
        let world_size = self.rank.world_size();
        if root >= world_size {
            return Err(TorchExtError::NoSuchRank { rank: root, world_size });
        }
        self.check("the tensor", tensor)?;
        let described = format!("broadcast from rank {root} of {}", describe(tensor));
        let tensor = tensor.as_mut_ptr();
        // SAFETY: group and tensor outlive the call; the work holds its own handles.
        self.start("broadcast", &described, |group, out, message| unsafe {
            ffi::torch_ext_broadcast(group, tensor, root as i32, out, message)
        })
    }

    /// Waits for a collective of this group.
    pub(crate) fn finish(&self, work: &WorkHandle) -> Result<(), TorchExtError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = call("exchange tensors", |message| {
            // SAFETY: the work is alive; waiting for it twice is permitted.
            unsafe { ffi::torch_ext_work_wait(work.as_ptr(), message) }
        });
        waited.map_err(|error| self.failed(error))
    }

    fn start(
        &self,
        what: &'static str,
        described: &str,
        start: impl FnOnce(*mut ffi::CGroup, *mut *mut ffi::CWork, Message) -> i32,
    ) -> Result<WorkHandle, TorchExtError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(TorchExtError::Unusable { reason });
        }
        self.agreement.check(described).map_err(|error| self.failed(error))?;
        let mut out = std::ptr::null_mut();
        call(what, |message| start(self.handle.as_ptr(), &raw mut out, message))
            .map_err(|error| self.failed(error))?;
        Ok(WorkHandle::new(out))
    }

    /// Makes the group unusable. Returns the failure of another rank if that was reported first.
    fn failed(&self, error: TorchExtError) -> TorchExtError {
        let reported = self.agreement.failure().ok().flatten();
        let error = match (error, reported) {
            (error @ TorchExtError::Disagreement { .. }, _) | (error, None) => error,
            (_, Some(reason)) => TorchExtError::OtherRank { reason },
        };
        self.agreement.give_up(&error);
        self.abort_handle().abort(&error.to_string());
        error
    }

    fn check(&self, name: &'static str, tensor: &Tensor) -> Result<(), TorchExtError> {
        let (found, device) = (tensor.kind(), tensor.device());
        if !self.backend.supports(device) {
            let expected = self.backend.devices();
            return Err(TorchExtError::GroupDevice { tensor: name, found: device, expected });
        }
        if !SUPPORTED_KINDS.contains(&found) {
            return Err(TorchExtError::KindNotSent { tensor: name, found });
        }
        check_contiguous(name, tensor)?;
        if tensor.numel() == 0 {
            return Err(TorchExtError::Empty { tensor: name });
        }
        Ok(())
    }

    fn check_parts(
        &self,
        (whole_name, whole): (&'static str, &Tensor),
        (part_name, part): (&'static str, &Tensor),
    ) -> Result<(), TorchExtError> {
        self.check(whole_name, whole)?;
        self.check(part_name, part)?;
        let (expected, found) = (whole.kind(), part.kind());
        if found != expected {
            return Err(TorchExtError::Kind { tensor: part_name, found, expected });
        }
        let (expected, found) = (whole.device(), part.device());
        if found != expected {
            return Err(TorchExtError::Device { tensor: part_name, found, expected });
        }
        let (world_size, whole_size, part_size) = (self.rank.world_size(), whole.numel(), part.numel());
        if whole_size != part_size * world_size {
            return Err(TorchExtError::PartSize { whole: whole_size, part: part_size, world_size });
        }
        let span = |tensor: &Tensor| {
            let start = tensor.data_ptr() as usize;
            start..start + tensor.numel() * tensor.kind().elt_size_in_bytes()
        };
        let (whole, part) = (span(whole), span(part));
        if whole.start < part.end && part.start < whole.end {
            return Err(TorchExtError::Overlap { first: whole_name, second: part_name });
        }
        Ok(())
    }
}

/// Aborts a process group from any thread.
#[derive(Clone, Debug)]
pub struct AbortHandle {
    group: Weak<GroupHandle>,
    failure: Arc<Mutex<Option<String>>>,
}

impl AbortHandle {
    /// Closes this rank's connections, so that pending calls fail: at once on the other ranks, at the latest at their timeout on
    /// this one. Later calls return [`TorchExtError::Unusable`] with `reason`. Does nothing after the group was dropped.
    pub fn abort(&self, reason: &str) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
        if let Some(group) = self.group.upgrade() {
            // SAFETY: the handle keeps the group alive, and the shim permits this call at any time. A second close may fail, which
            // has no consequence.
            let _ = call("close connections", |message| unsafe {
                ffi::torch_ext_group_abort(group.as_ptr(), message)
            });
        }
    }
}

/// The kinds that both Gloo and NCCL support.
const SUPPORTED_KINDS: [Kind; 8] =
    [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16, Kind::Int8, Kind::Uint8, Kind::Int, Kind::Int64];

fn describe(tensor: &Tensor) -> String {
    format!("{} elements of {:?}", tensor.numel(), tensor.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_support_their_devices() {
        assert!(Backend::Gloo.supports(Device::Cpu) && !Backend::Gloo.supports(Device::Cuda(0)));
        #[cfg(feature = "nccl")]
        assert!(Backend::Nccl.supports(Device::Cuda(1)) && !Backend::Nccl.supports(Device::Cpu));
    }
}
