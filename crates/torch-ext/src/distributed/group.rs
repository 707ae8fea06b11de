//! Process groups and their collectives.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use super::agreement::Agreement;
use super::ffi::{self, GroupHandle, WorkHandle};
use super::store::milliseconds;
use super::{Rank, Scope, Store};
use crate::TorchExtError;
use crate::ffi::{Message, call};

/// How numbers of several ranks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// Their sum.
    Sum,
    /// Their product.
    Product,
    /// The least of them.
    Min,
    /// The greatest of them.
    Max,
}

impl ReduceOp {
    /// c10d's number for it.
    fn code(self) -> u8 {
        match self {
            Self::Sum => 0,
            Self::Product => 2,
            Self::Min => 3,
            Self::Max => 4,
        }
    }
}

/// What moves the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Gloo,
    #[cfg(feature = "nccl")]
    Nccl,
}

impl Backend {
    fn reaches(self, device: Device) -> bool {
        match self {
            Self::Gloo => device == Device::Cpu,
            #[cfg(feature = "nccl")]
            Self::Nccl => device.is_cuda(),
        }
    }

    /// The devices that it reaches, in words.
    fn devices(self) -> &'static str {
        match self {
            Self::Gloo => "the CPU",
            #[cfg(feature = "nccl")]
            Self::Nccl => "GPUs",
        }
    }
}

/// Processes (or threads) that make the same calls on tensors of the same sizes, and so exchange what is in them.
///
/// A call on one rank ends when the others made it too, or with an error within the timeout. After an error the group is of
/// no more use: later calls return [`TorchExtError::Unusable`], and the other ranks hear why.
///
/// A group may move to another thread but not be shared between threads: calls have an order, the same on all ranks.
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
    /// Why the group is of no more use; also set by abort handles.
    failure: Arc<Mutex<Option<String>>>,
    /// Groups are not shared between threads.
    not_sync: std::marker::PhantomData<RefCell<()>>,
}

impl ProcessGroup {
    /// Joins the group `name` over TCP, for tensors in main memory, once all ranks are there.
    ///
    /// Ranks listen on the address of their machine that faces the store. `timeout` is how long ranks are waited for, here and
    /// in each call.
    ///
    /// # Errors
    ///
    /// [`TorchExtError::WorldSizeMismatch`], [`TorchExtError::RankTwice`], [`TorchExtError::RanksMissing`],
    /// [`TorchExtError::OtherRank`] with what another one of these was told.
    pub fn gloo(store: &Store, name: &str, rank: Rank, timeout: Duration) -> Result<Self, TorchExtError> {
        let address = store.own_address()?;
        Self::join(store, name, rank, timeout, Backend::Gloo, move |store, name, rank, made, message| {
            let (name, address) = (ffi::Bytes::of(name.as_bytes()), ffi::Bytes::of(address.as_bytes()));
            // SAFETY: store, name, address and `made` outlive the call.
            unsafe {
                let timeout = milliseconds(timeout);
                ffi::torch_ext_group_gloo(store, name, rank, address, timeout, made, message)
            }
        })
    }

    /// Joins the group `name` through NCCL, for tensors on GPUs, one a rank, once all ranks are there. See
    /// [`gloo`](Self::gloo) for what can be wrong.
    ///
    /// A call whose time runs out ends the process: that is how c10d's watchdog keeps a GPU from hanging.
    ///
    /// # Errors
    ///
    /// As [`gloo`](Self::gloo); [`TorchExtError::Torch`] where there is no GPU.
    #[cfg(feature = "nccl")]
    pub fn nccl(store: &Store, name: &str, rank: Rank, timeout: Duration) -> Result<Self, TorchExtError> {
        Self::join(store, name, rank, timeout, Backend::Nccl, move |store, name, rank, made, message| {
            let (name, timeout) = (ffi::Bytes::of(name.as_bytes()), milliseconds(timeout));
            // SAFETY: store, name and `made` outlive the call.
            unsafe { ffi::torch_ext_group_nccl(store, name, rank, timeout, made, message) }
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
        let made = store.with_handle(connect, 2 * timeout, move |handle| {
            let mut made = std::ptr::null_mut();
            call(connect, |message| make(handle.as_ptr(), &prefix, ranks, &raw mut made, message))?;
            Ok(GroupHandle::new(made))
        });
        let handle = Arc::new(made.inspect_err(|error| agreement.give_up(error))?);
        let failure = Arc::default();
        Ok(Self { handle, backend, rank, agreement, failure, not_sync: std::marker::PhantomData })
    }

    /// Which rank this is.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Replaces `tensor` on each rank by the sum (product, …) over all ranks, element by element.
    ///
    /// The result has the same bits on all ranks. It does not have the same bits as a sum in another order, such as over
    /// another number of ranks.
    ///
    /// # Errors
    ///
    /// Where the tensor cannot be sent, or ranks do not agree ([`TorchExtError::Disagreement`]): nothing is sent then. Where
    /// another rank is gone or too slow; what the tensor holds then is undefined.
    pub fn all_reduce(&self, tensor: &mut Tensor, operation: ReduceOp) -> Result<(), TorchExtError> {
        let work = self.start_all_reduce(tensor, operation)?;
        self.finish(&work)
    }

    /// Sums (…) `input` over all ranks, of which each receives its part: rank `r` elements `r · n` to `(r + 1) · n`, where `n`
    /// is the size of `output`.
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

    /// Puts `input` of each rank, in their order, one behind the other into `output` of all ranks.
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

    /// Comes back once all ranks have come here.
    ///
    /// # Errors
    ///
    /// As [`all_reduce`](Self::all_reduce).
    pub fn barrier(&self) -> Result<(), TorchExtError> {
        // SAFETY: the group outlives the call.
        let work = self.start("wait at a barrier", "barrier", |group, made, message| unsafe {
            ffi::torch_ext_barrier(group, made, message)
        })?;
        self.finish(&work)
    }

    /// Runs `body`, in which collectives can be started and left to themselves; comes back when all of them have ended.
    ///
    /// Work reads and writes its tensors from another thread until it has ended. So it borrows them for as long as the scope,
    /// which waits for it even where a [`Work`](super::Work) was forgotten or `body` panics.
    ///
    /// # Errors
    ///
    /// The first error of a collective whose [`Work`](super::Work) was not waited for.
    pub fn scope<'env, R>(
        &'env self,
        body: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
    ) -> Result<R, TorchExtError> {
        let scope = Scope::new(self);
        // Dropped after the scope in a panic too, and out of the body's reach.
        let unfinished = scope.unfinished();
        let result = body(&scope);
        unfinished.wait()?;
        Ok(result)
    }

    /// A handle to [abort](AbortHandle::abort) the group with, from any thread.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle { group: Arc::downgrade(&self.handle), failure: self.failure.clone() }
    }

    /// Tells the other ranks that this one gives up and why, and closes its connections: their calls fail at once, with these
    /// words. Where another rank gave up before, its words stay.
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
        // SAFETY: group and tensor outlive the call; the work holds handles of its own.
        self.start("all-reduce", &described, |group, made, message| unsafe {
            ffi::torch_ext_all_reduce(group, tensor, operation.code(), made, message)
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
        // Flat, since libtorch wants the parts along the first dimension.
        let (output, input) = (output.view(-1), input.view(-1));
        // SAFETY: group and tensors outlive the call; the work holds handles of its own, and only reads the input.
        self.start("reduce-scatter", &described, |group, made, message| unsafe {
            let (output, input) = (output.as_ptr().cast_mut(), input.as_ptr().cast_mut());
            ffi::torch_ext_reduce_scatter(group, output, input, operation.code(), made, message)
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
        // SAFETY: group and tensors outlive the call; the work holds handles of its own, and only reads the input.
        self.start("all-gather", &described, |group, made, message| unsafe {
            let (output, input) = (output.as_ptr().cast_mut(), input.as_ptr().cast_mut());
            ffi::torch_ext_all_gather(group, output, input, made, message)
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
        // SAFETY: group and tensor outlive the call; the work holds handles of its own.
        self.start("broadcast", &described, |group, made, message| unsafe {
            ffi::torch_ext_broadcast(group, tensor, root as i32, made, message)
        })
    }

    /// Waits for work of this group.
    pub(crate) fn finish(&self, work: &WorkHandle) -> Result<(), TorchExtError> {
        let waited = call("exchange tensors", |message| {
            // SAFETY: the work lives; waiting for it more than once is allowed.
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
        if let Some(reason) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(TorchExtError::Unusable { reason });
        }
        self.agreement.check(described).map_err(|error| self.failed(error))?;
        let mut made = std::ptr::null_mut();
        call(what, |message| start(self.handle.as_ptr(), &raw mut made, message))
            .map_err(|error| self.failed(error))?;
        Ok(WorkHandle::new(made))
    }

    /// Makes the group unusable, and says what another rank said if that came first.
    fn failed(&self, error: TorchExtError) -> TorchExtError {
        let told = self.agreement.failure().ok().flatten();
        let error = match (error, told) {
            (error @ TorchExtError::Disagreement { .. }, _) | (error, None) => error,
            (_, Some(reason)) => TorchExtError::OtherRank { reason },
        };
        self.agreement.give_up(&error);
        self.abort_handle().abort(&error.to_string());
        error
    }

    fn check(&self, name: &'static str, tensor: &Tensor) -> Result<(), TorchExtError> {
        let (found, device) = (tensor.kind(), tensor.device());
        if !self.backend.reaches(device) {
            let expected = self.backend.devices();
            return Err(TorchExtError::GroupDevice { tensor: name, found: device, expected });
        }
        if !SENT.contains(&found) {
            return Err(TorchExtError::KindNotSent { tensor: name, found });
        }
        if !tensor.is_contiguous() {
            return Err(TorchExtError::NotContiguous { tensor: name });
        }
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
        let (world_size, of_whole, of_part) = (self.rank.world_size(), whole.numel(), part.numel());
        if of_whole != of_part * world_size {
            return Err(TorchExtError::PartSize { whole: of_whole, part: of_part, world_size });
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

/// Aborts a process group from another thread than the one that works with it.
#[derive(Clone, Debug)]
pub struct AbortHandle {
    group: Weak<GroupHandle>,
    failure: Arc<Mutex<Option<String>>>,
}

impl AbortHandle {
    /// Closes this rank's connections, so that calls under way fail: on the other ranks at once, here at the latest when their
    /// time runs out. Later calls return [`TorchExtError::Unusable`] with `reason`. Where the group is gone, nothing happens.
    pub fn abort(&self, reason: &str) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
        if let Some(group) = self.group.upgrade() {
            // SAFETY: the handle keeps the group alive, and the shim allows this call at any time. That connections cannot be
            // closed twice is no error of whoever gives up.
            let _ = call("close connections", |message| unsafe {
                ffi::torch_ext_group_abort(group.as_ptr(), message)
            });
        }
    }
}

/// The kinds that Gloo and NCCL both take.
const SENT: [Kind; 8] =
    [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16, Kind::Int8, Kind::Uint8, Kind::Int, Kind::Int64];

fn describe(tensor: &Tensor) -> String {
    format!("{} elements of {:?}", tensor.numel(), tensor.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_has_its_devices() {
        assert!(Backend::Gloo.reaches(Device::Cpu) && !Backend::Gloo.reaches(Device::Cuda(0)));
        #[cfg(feature = "nccl")]
        assert!(Backend::Nccl.reaches(Device::Cuda(1)) && !Backend::Nccl.reaches(Device::Cpu));
    }
}
