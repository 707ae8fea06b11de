//! Process groups: the processes that work together, as each of them sees them.

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tch::{Device, Tensor};
use torch_ext::TorchExtError;
use torch_ext::distributed::{self as c10d, Rank, ReduceOp, Store};

use crate::batch::balanced_shards;
use crate::error::DistributedError;
use crate::placement::Placement;
use crate::shutdown;

/// The name of the process group in the store.
const NAME: &str = "train";
/// The key that names the process which serves the store.
const RANK_ZERO: &str = "rank-0-serves";
/// How long to wait for an answer from the process that holds a port.
const PROBE: Duration = Duration::from_secs(2);
/// The interval between two looks at the ranks that have reached a long barrier.
const LONG_POLL: Duration = Duration::from_millis(200);
/// The number of elements of a long tensor that are broadcast at a time.
const AT_A_TIME: i64 = 1 << 22;

/// A group of processes that work together, or a [`single`](Self::single) process.
///
/// Clones are handles to the same group. All ranks call each method that communicates, in the same order.
#[derive(Clone, Debug, Default)]
pub struct ProcessGroup {
    members: Option<Arc<Members>>,
    /// The device of tensors that are exchanged, or the one of a single process that may not use any other.
    device: Option<Device>,
}

#[derive(Debug)]
struct Members {
    group: c10d::ProcessGroup,
    /// The keys of this group.
    store: Store,
    origin: Origin,
    /// The number of long barriers so far.
    long_barriers: AtomicU64,
}

/// The source of a group and of those that replace it after an error.
#[derive(Clone, Debug)]
struct Origin {
    store: Store,
    rank: Rank,
    timeout: Duration,
    /// The number of groups that this one replaces.
    generation: u32,
}

impl Drop for Members {
    fn drop(&mut self) {
        shutdown::announce(&self.store, self.group.rank());
    }
}

impl ProcessGroup {
    /// Returns the group of a single process, whose methods communicate with nobody.
    pub fn single() -> Self {
        Self::default()
    }

    /// Returns the group of a single process that computes on `device`.
    pub fn single_on(device: Device) -> Self {
        Self { members: None, device: Some(device) }
    }

    /// Joins the other ranks at `placement`, for tensors on `device`. `timeout` limits the wait for other ranks, here and in
    /// each later exchange.
    ///
    /// # Errors
    ///
    /// If the ranks cannot connect: a port in use, a rank that is there twice or not at all, another `WORLD_SIZE`; if this
    /// build does not support the device.
    pub fn join(placement: &Placement, device: Device, timeout: Duration) -> Result<Self, DistributedError> {
        let Placement { rank, host, port, token, .. } = placement;
        if device != Device::Cpu && !cfg!(feature = "nccl") {
            return Err(DistributedError::NoNccl { device });
        }
        let store = if rank.index() == 0 {
            let store = Store::serve(host, *port, timeout).map_err(|error| who_holds(error, host, *port))?;
            store.set(RANK_ZERO, std::process::id().to_string().as_bytes())?;
            store
        } else {
            Store::connect(host, *port, timeout)?
        };
        let store = store.named(&token.prefix());
        let group = Self::connect(Origin { store, rank: *rank, timeout, generation: 0 }, device)?;
        tracing::info!("{rank} on {device:?}, process {}", std::process::id());
        Ok(group)
    }

    fn connect(origin: Origin, device: Device) -> Result<Self, DistributedError> {
        let Origin { rank, timeout, generation, .. } = origin;
        let store = match generation {
            0 => origin.store.clone(),
            again => origin.store.named(&format!("again-{again}")),
        };
        let group = match device {
            #[cfg(feature = "nccl")]
            Device::Cuda(_) => c10d::ProcessGroup::nccl(&store, NAME, rank, timeout),
            _ => c10d::ProcessGroup::gloo(&store, NAME, rank, timeout),
        };
        let group = group.inspect_err(|_| shutdown::announce(&store, rank))?;
        let members = Members { group, store, origin, long_barriers: AtomicU64::new(0) };
        Ok(Self { members: Some(Arc::new(members)), device: Some(device) })
    }

    /// Joins the same ranks again after an error, which makes a group unusable. All ranks call it.
    ///
    /// # Errors
    ///
    /// If a rank has ended or does not join within the timeout.
    pub fn renewed(&self) -> Result<Self, DistributedError> {
        let (Some(members), Some(device)) = (&self.members, self.device) else { return Ok(self.clone()) };
        let Origin { generation, .. } = members.origin;
        Self::connect(Origin { generation: generation + 1, ..members.origin.clone() }, device)
    }

    /// Divides the ranks into groups of `size` with consecutive ranks, and returns the group of this rank. An error of one group
    /// does not affect the others. All ranks call it.
    ///
    /// # Panics
    ///
    /// If `size` does not divide the number of ranks.
    ///
    /// # Errors
    ///
    /// If a rank of the group has ended or does not join within the timeout.
    pub fn split(&self, size: u16) -> Result<Self, DistributedError> {
        assert!(self.rank().world_size().is_multiple_of(usize::from(size)), "groups have equal sizes");
        let (Some(members), Some(device)) = (&self.members, self.device) else { return Ok(self.clone()) };
        if size == 1 {
            return Ok(Self::single_on(device));
        }
        let (group, index) =
            (self.rank().index() / usize::from(size), self.rank().index() % usize::from(size));
        let rank = Rank::new(index as u16, size)?;
        let store = members.origin.store.named(&format!("group-{group}"));
        Self::connect(Origin { store, rank, generation: 0, ..members.origin.clone() }, device)
    }

    /// The rank of this process.
    pub fn rank(&self) -> Rank {
        self.members.as_ref().map_or(Rank::ALONE, |members| members.group.rank())
    }

    /// The number of ranks.
    pub fn world_size(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.rank().world_size()).unwrap_or(NonZeroUsize::MIN)
    }

    /// The device of this rank; `None` for a single process that may use any.
    pub fn device(&self) -> Option<Device> {
        self.device
    }

    /// Whether this is rank 0, which alone writes files and results.
    pub fn is_main(&self) -> bool {
        self.rank().index() == 0
    }

    /// Whether there are other ranks.
    pub fn is_distributed(&self) -> bool {
        self.members.is_some()
    }

    /// libtorch's process group; `None` for a single process.
    pub(crate) fn c10d(&self) -> Option<&c10d::ProcessGroup> {
        self.members.as_ref().map(|members| &members.group)
    }

    /// Returns the items of a batch, given by their tokens, that belong to this rank: ascending; all for a single process.
    pub fn shard_batch(&self, tokens: &[usize]) -> Vec<usize> {
        if !self.is_distributed() {
            return (0..tokens.len()).collect();
        }
        balanced_shards(tokens, self.rank().world_size()).swap_remove(self.rank().index())
    }

    /// Whether part `number` of many parts of equal work belongs to this rank.
    pub fn owns(&self, number: usize) -> bool {
        let rank = self.rank();
        number % rank.world_size() == rank.index()
    }

    /// The group's members and the device of their tensors; `None` for a single process.
    fn members(&self) -> Option<(&Members, Device)> {
        self.members.as_deref().zip(self.device)
    }

    /// Replaces each number by its sum over all ranks; the bits are the same on all ranks.
    ///
    /// # Errors
    ///
    /// If another rank fails or is missing.
    pub fn all_reduce_sum(&self, values: &mut [f64]) -> Result<(), DistributedError> {
        let Some((members, device)) = self.members() else { return Ok(()) };
        if values.is_empty() {
            return Ok(());
        }
        let mut tensor = Tensor::from_slice(values).to_device(device);
        members.group.all_reduce(&mut tensor, ReduceOp::Sum)?;
        let count = values.len();
        tensor.to_device(Device::Cpu).copy_data(values, count);
        Ok(())
    }

    /// Whether `value` is true on any rank.
    ///
    /// # Errors
    ///
    /// If another rank fails or is missing.
    pub fn any(&self, value: bool) -> Result<bool, DistributedError> {
        let mut count = [f64::from(u8::from(value))];
        self.all_reduce_sum(&mut count)?;
        Ok(count[0] > 0.0)
    }

    /// Returns rank 0's `bytes` on all ranks; the bytes of other ranks are ignored.
    ///
    /// # Errors
    ///
    /// If another rank fails or is missing.
    pub fn broadcast_from_rank0(&self, bytes: Vec<u8>) -> Result<Vec<u8>, DistributedError> {
        self.broadcast(0, bytes)
    }

    /// Runs `compute` on rank 0 only, and returns its bytes on all ranks.
    ///
    /// # Errors
    ///
    /// The error of `compute` on rank 0; on other ranks, if another rank fails or is missing.
    pub fn compute_on_rank0<E: From<DistributedError>>(
        &self,
        compute: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let own = if self.is_main() { compute()? } else { Vec::new() };
        Ok(self.broadcast_from_rank0(own)?)
    }

    /// Returns on all ranks whether `condition` is true on rank 0.
    ///
    /// # Errors
    ///
    /// If another rank fails or is missing.
    pub fn holds_on_rank0(&self, condition: impl FnOnce() -> bool) -> Result<bool, DistributedError> {
        Ok(self.compute_on_rank0(|| Ok::<_, DistributedError>(vec![u8::from(condition())]))? == [1])
    }

    /// Returns the bytes of each rank, in the order of the ranks, on all ranks.
    ///
    /// # Errors
    ///
    /// If another rank fails or is missing.
    pub fn all_gather_bytes(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, DistributedError> {
        let rank = self.rank();
        let mut own = Some(own);
        let mut bytes_for =
            |root| if root == rank.index() { own.take().unwrap_or_default() } else { Vec::new() };
        (0..rank.world_size()).map(|root| self.broadcast(root, bytes_for(root))).collect()
    }

    /// Returns the bytes of rank `root` on all ranks.
    fn broadcast(&self, root: usize, mut bytes: Vec<u8>) -> Result<Vec<u8>, DistributedError> {
        let Some((members, device)) = self.members() else { return Ok(bytes) };
        let mut length = Tensor::from_slice(&[bytes.len() as i64]).to_device(device);
        members.group.broadcast(&mut length, root)?;
        bytes.resize(length.int64_value(&[0]) as usize, 0);
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let mut tensor = Tensor::from_slice(&bytes).to_device(device);
        members.group.broadcast(&mut tensor, root)?;
        let count = bytes.len();
        tensor.to_device(Device::Cpu).copy_data(&mut bytes, count);
        Ok(bytes)
    }

    /// Copies rank 0's elements of a one-dimensional tensor to all ranks.
    ///
    /// # Errors
    ///
    /// If another rank fails or is missing.
    pub fn broadcast_tensor_from_rank0(&self, tensor: &Tensor) -> Result<(), DistributedError> {
        let Some((members, device)) = self.members() else { return Ok(()) };
        for mut part in tensor.split(AT_A_TIME, 0) {
            let mut sent = part.to_device(device);
            members.group.broadcast(&mut sent, 0)?;
            part.copy_(&sent);
        }
        Ok(())
    }

    /// Blocks until every rank reaches the barrier.
    ///
    /// # Errors
    ///
    /// If another rank fails or is missing.
    pub fn barrier(&self) -> Result<(), DistributedError> {
        self.members.as_ref().map_or(Ok(()), |members| Ok(members.group.barrier()?))
    }

    /// Blocks until every rank reaches the barrier, without a time limit: ranks may compute for hours before it. Returns `false`
    /// if `stop` is set first.
    ///
    /// # Errors
    ///
    /// If another rank aborts the group, or rank 0 ends.
    pub fn long_barrier(&self, stop: &AtomicBool) -> Result<bool, DistributedError> {
        let Some(members) = &self.members else { return Ok(true) };
        let number = members.long_barriers.fetch_add(1, Ordering::Relaxed);
        let key = format!("long-barrier-{number}");
        let mut here = members.store.add(&key, 1)?;
        while here < self.rank().world_size() as i64 {
            if let Ok(reason) = members.store.named(NAME).get("failure", Duration::ZERO) {
                let reason = String::from_utf8_lossy(&reason).into_owned();
                return Err(TorchExtError::OtherRank { reason }.into());
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            thread::sleep(LONG_POLL);
            here = members.store.add(&key, 0)?;
        }
        Ok(true)
    }

    /// Returns `result`, and aborts the group if it is an error: the other ranks then fail with this error.
    ///
    /// # Errors
    ///
    /// The error of `result`.
    pub fn propagate_error<T, E: Error + 'static>(&self, result: Result<T, E>) -> Result<T, E> {
        result.inspect_err(|error| self.abort(error))
    }

    /// Aborts the group: the calls of the other ranks fail at once, with this error.
    pub fn abort(&self, error: &(dyn Error + 'static)) {
        let Some(members) = &self.members else { return };
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        members.group.give_up(&text);
    }
}

/// Returns a better error if the port is held by a rank 0 of the same job, which names itself in its store.
fn who_holds(error: TorchExtError, host: &str, port: u16) -> DistributedError {
    let is_taken = matches!(error, TorchExtError::PortTaken { .. });
    let rank_zero = || Store::connect(host, port, PROBE)?.get(RANK_ZERO, PROBE);
    match is_taken.then(rank_zero) {
        Some(Ok(process)) => {
            let process = String::from_utf8_lossy(&process).into_owned();
            DistributedError::RankZeroTwice { host: host.to_owned(), port, process }
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Token;

    #[test]
    fn a_single_process_owns_everything_and_communicates_with_nobody() {
        let group = ProcessGroup::single();
        assert!(group.is_main() && !group.is_distributed());
        assert_eq!(group.shard_batch(&[5, 1, 9]), [0, 1, 2]);
        assert!((0..3).all(|number| group.owns(number)));
        let mut values = [1.0, f64::NEG_INFINITY];
        group.all_reduce_sum(&mut values).unwrap();
        assert_eq!(values, [1.0, f64::NEG_INFINITY]);
        assert!(group.any(true).unwrap() && !group.any(false).unwrap());
        assert_eq!(group.broadcast_from_rank0(vec![1, 2]).unwrap(), [1, 2]);
        assert_eq!(group.all_gather_bytes(vec![3]).unwrap(), [[3]]);
        group.check_agreement::<DistributedError>(|| panic!("there is no other rank")).unwrap();
    }

    fn alone(port: u16) -> ProcessGroup {
        let (host, token) = ("127.0.0.1".to_owned(), Token::random());
        let placement = Placement { rank: Rank::ALONE, local_rank: 0, host, port, token };
        ProcessGroup::join(&placement, Device::Cpu, Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn a_stranger_who_does_not_know_the_token_ends_no_run() {
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let group = alone(free);
        let stranger = Store::connect("127.0.0.1", free, PROBE).unwrap();
        for prefix in ["", "run-0/", &format!("{}/", Token::default().prefix())] {
            for key in ["failure", "world-size", "rank-0", "here", "call-0", "call-1", "ended", RANK_ZERO] {
                stranger.set(&format!("{prefix}{NAME}/{key}"), b"rank 0 failed: a stranger says so").unwrap();
                stranger.set(&format!("{prefix}{key}"), b"9").unwrap();
            }
        }
        assert_eq!(group.broadcast_from_rank0(b"text".to_vec()).unwrap(), b"text");
        group.barrier().unwrap();
    }

    #[test]
    fn a_single_process_may_have_a_device() {
        let group = ProcessGroup::single_on(Device::Cuda(3));
        assert_eq!((group.device(), group.is_distributed()), (Some(Device::Cuda(3)), false));
        assert_eq!(ProcessGroup::single().device(), None);
        assert_eq!(group.renewed().unwrap().device(), Some(Device::Cuda(3)));
    }

    #[test]
    fn an_error_aborts_the_group() {
        let group = alone(0);
        assert_eq!(group.broadcast_from_rank0(b"text".to_vec()).unwrap(), b"text");
        assert!(!group.holds_on_rank0(|| false).unwrap());
        let error = std::io::Error::other("the disk is full");
        assert!(group.propagate_error::<(), _>(Err(error)).is_err());
        let later = group.barrier().unwrap_err().to_string();
        assert!(later.contains("the disk is full"), "{later}");
        let again = group.renewed().unwrap();
        again.barrier().unwrap();
        again.abort(&std::io::Error::other("out of memory"));
        assert!(again.barrier().is_err());
        again.renewed().unwrap().barrier().unwrap();
    }
}
