//! The processes that train together, as each of them sees them.

use std::error::Error;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use pref_data::rank_shares;
use tch::{Device, Tensor};
use torch_ext::TorchExtError;
use torch_ext::distributed::{ProcessGroup, Rank, ReduceOp, Store};

use super::{Buckets, Fact, Place, Shard, Timing, facts, farewell};
use crate::TrainError;

/// The name under which ranks meet in the store.
const NAME: &str = "train";
/// Says who serves the store.
const LEADER: &str = "rank-0-serves";
/// How long whoever holds a port is listened to.
const PEEK: Duration = Duration::from_secs(2);
/// Elements of a long tensor that are broadcast at a time.
const AT_A_TIME: i64 = 1 << 22;

/// The processes that train together; [`World::alone`] for one.
///
/// Clones are handles to the same. Every method that asks other ranks is one that all ranks call, in the same order.
#[derive(Clone, Debug, Default)]
pub struct World {
    ranks: Option<Rc<Ranks>>,
}

#[derive(Debug)]
struct Ranks {
    group: ProcessGroup,
    store: Store,
    /// Where tensors that travel lie.
    device: Device,
}

impl Drop for Ranks {
    fn drop(&mut self) {
        farewell::part(&self.store, self.group.rank());
    }
}

impl World {
    /// A process on its own.
    pub fn alone() -> Self {
        Self::default()
    }

    /// Comes together with the other ranks at `place`, for tensors on `device`. Whoever is not there within `timeout` is
    /// missed, here and in each later exchange.
    ///
    /// # Errors
    ///
    /// Where the ranks do not come together: a port that is taken, a rank that is there twice or not at all, another
    /// `WORLD_SIZE`; where this build cannot reach the device.
    pub fn join(place: &Place, device: Device, timeout: Duration) -> Result<Self, TrainError> {
        let Place { rank, host, port, .. } = place;
        if device != Device::Cpu && !cfg!(feature = "nccl") {
            return Err(TrainError::NoNccl { device });
        }
        let store = if rank.index() == 0 {
            let store = Store::serve(host, *port, timeout).map_err(|error| told_of(error, host, *port))?;
            store.set(LEADER, std::process::id().to_string().as_bytes())?;
            store
        } else {
            Store::connect(host, *port, timeout)?
        };
        let group = match device {
            #[cfg(feature = "nccl")]
            Device::Cuda(_) => ProcessGroup::nccl(&store, NAME, *rank, timeout),
            _ => ProcessGroup::gloo(&store, NAME, *rank, timeout),
        };
        let group = group.inspect_err(|_| farewell::part(&store, *rank))?;
        tracing::info!("{rank} on {device:?}, process {}", std::process::id());
        Ok(Self { ranks: Some(Rc::new(Ranks { group, store, device })) })
    }

    /// Which rank this is.
    pub fn rank(&self) -> Rank {
        self.ranks.as_ref().map_or(Rank::ALONE, |ranks| ranks.group.rank())
    }

    /// How many ranks there are.
    pub fn count(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.rank().world_size()).unwrap_or(NonZeroUsize::MIN)
    }

    /// Where this rank computes; `None` for a process alone, which is free.
    pub fn device(&self) -> Option<Device> {
        self.ranks.as_ref().map(|ranks| ranks.device)
    }

    /// Whether this rank writes, and speaks.
    pub fn leads(&self) -> bool {
        self.rank().index() == 0
    }

    /// Whether there are others.
    pub fn is_several(&self) -> bool {
        self.ranks.is_some()
    }

    /// Which of the items of a batch, given by their tokens, are this rank's: ascending, and all of them for a process alone.
    pub(crate) fn share(&self, tokens: &[usize]) -> Vec<usize> {
        match &self.ranks {
            None => (0..tokens.len()).collect(),
            Some(ranks) => {
                let rank = ranks.group.rank();
                rank_shares(tokens, rank.world_size()).swap_remove(rank.index())
            }
        }
    }

    /// Whether the `number`-th of many parts of equal work is this rank's.
    pub fn takes(&self, number: usize) -> bool {
        let rank = self.rank();
        number % rank.world_size() == rank.index()
    }

    /// Replaces each number by its sum over all ranks, which has the same bits on all of them.
    pub(crate) fn sum(&self, values: &mut [f64]) -> Result<(), TrainError> {
        let Some(ranks) = &self.ranks else { return Ok(()) };
        if values.is_empty() {
            return Ok(());
        }
        let mut tensor = Tensor::from_slice(values).to_device(ranks.device);
        ranks.group.all_reduce(&mut tensor, ReduceOp::Sum)?;
        let count = values.len();
        tensor.to_device(Device::Cpu).copy_data(values, count);
        Ok(())
    }

    /// Whether any rank says so.
    pub(crate) fn any(&self, says: bool) -> Result<bool, TrainError> {
        let mut count = [f64::from(u8::from(says))];
        self.sum(&mut count)?;
        Ok(count[0] > 0.0)
    }

    /// Runs `body`, which adds up this rank's gradient, and sums it over all ranks: bucket by bucket, of which each leaves once
    /// `body` has said of all its elements (where they begin, and how many) that they are whole.
    pub(crate) fn sum_gradient<R>(
        &self,
        gradient: Buckets,
        body: impl FnOnce(&mut dyn FnMut(i64, i64)) -> Result<R, TrainError>,
    ) -> Result<R, TrainError> {
        let Some(ranks) = &self.ranks else { return body(&mut |_, _| ()) };
        let Buckets { mut buckets, mut pieces, mut countdown, timing } = gradient;
        let mut outcome = None;
        let sent = ranks.group.scope(|scope| {
            let (mut buckets, mut pieces) = (buckets.iter_mut().rev(), pieces.iter_mut().rev());
            let mut send = || {
                let Some(bucket) = buckets.next() else { return Ok(false) };
                match pieces.next() {
                    Some(piece) => scope.reduce_scatter(piece, bucket, ReduceOp::Sum)?,
                    None => scope.all_reduce(bucket, ReduceOp::Sum)?,
                };
                Ok::<_, TorchExtError>(true)
            };
            let mut sent = Ok(true);
            let done = body(&mut |start, length| {
                countdown.whole(start, length);
                while timing == Timing::DuringBackward && sent.is_ok() && countdown.leaves() {
                    sent = send();
                }
            });
            // Whoever has nothing to add, or could not, takes part nevertheless.
            while done.is_ok() && matches!(sent, Ok(true)) {
                sent = send();
            }
            outcome = Some(done);
            sent
        });
        let done = outcome.expect("the scope has run its body")?;
        sent??;
        Ok(done)
    }

    /// Puts the `part` of each rank, which is its `shard`, into `whole` of all ranks. `make` is told which elements of `part`
    /// leave next, and writes them before they do, while the ones before them are under way.
    pub(crate) fn gather(
        &self,
        shard: Shard,
        whole: &Tensor,
        part: &Tensor,
        mut make: impl FnMut(Range<i64>) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let Some(ranks) = &self.ranks else { return make(0..shard.length()) };
        let pieces = part.split(shard.piece, 0);
        let mut buckets = whole.split(shard.bucket(), 0);
        ranks.group.scope(|scope| {
            let mut start = 0;
            for (bucket, piece) in buckets.iter_mut().zip(&pieces) {
                make(start..start + shard.piece)?;
                scope.all_gather(bucket, piece)?;
                start += shard.piece;
            }
            Ok::<_, TrainError>(())
        })?
    }

    /// What rank 0 makes; the others do not make it, and hear it from there.
    ///
    /// # Errors
    ///
    /// What keeps rank 0 from making it; where another rank fails or does not come.
    pub fn hear_leader(
        &self,
        make: impl FnOnce() -> Result<Vec<u8>, TrainError>,
    ) -> Result<Vec<u8>, TrainError> {
        let own = if self.leads() { make()? } else { Vec::new() };
        self.hear(0, own)
    }

    /// What each rank brings, in the order of the ranks, on all of them.
    ///
    /// # Errors
    ///
    /// Where another rank fails or does not come.
    pub fn everyones(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, TrainError> {
        let rank = self.rank();
        let mut own = Some(own);
        let mut brought =
            |root| if root == rank.index() { own.take().unwrap_or_default() } else { Vec::new() };
        (0..rank.world_size()).map(|root| self.hear(root, brought(root))).collect()
    }

    /// The bytes of rank `root`, whatever the others hand in.
    fn hear(&self, root: usize, mut bytes: Vec<u8>) -> Result<Vec<u8>, TrainError> {
        let Some(ranks) = &self.ranks else { return Ok(bytes) };
        let mut length = Tensor::from_slice(&[bytes.len() as i64]).to_device(ranks.device);
        ranks.group.broadcast(&mut length, root)?;
        bytes.resize(length.int64_value(&[0]) as usize, 0);
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let mut tensor = Tensor::from_slice(&bytes).to_device(ranks.device);
        ranks.group.broadcast(&mut tensor, root)?;
        let count = bytes.len();
        tensor.to_device(Device::Cpu).copy_data(&mut bytes, count);
        Ok(bytes)
    }

    /// Whether rank 0 finds that it is so.
    pub(crate) fn leader_finds(
        &self,
        finds: impl FnOnce() -> Result<bool, TrainError>,
    ) -> Result<bool, TrainError> {
        Ok(self.hear_leader(|| Ok(vec![u8::from(finds()?)]))? == [1])
    }

    /// Gives all ranks what a tensor of one dimension holds on rank 0.
    pub(crate) fn copy_from_leader(&self, tensor: &Tensor) -> Result<(), TrainError> {
        let Some(ranks) = &self.ranks else { return Ok(()) };
        for mut part in tensor.split(AT_A_TIME, 0) {
            let mut there = part.to_device(ranks.device);
            ranks.group.broadcast(&mut there, 0)?;
            part.copy_(&there);
        }
        Ok(())
    }

    /// Comes back once all ranks have come here.
    pub(crate) fn meet(&self) -> Result<(), TrainError> {
        self.ranks.as_ref().map_or(Ok(()), |ranks| Ok(ranks.group.barrier()?))
    }

    /// Compares what must be alike on all ranks; all of them fail where it is not. A process alone is not asked.
    ///
    /// # Errors
    ///
    /// [`TrainError::RanksDiffer`] on the rank that differs; what `facts` fails with.
    pub fn agree(&self, facts: impl FnOnce() -> Result<Vec<Fact>, TrainError>) -> Result<(), TrainError> {
        if !self.is_several() {
            return Ok(());
        }
        let facts = facts()?;
        let leaders = facts::from_bytes(&self.hear_leader(|| Ok(facts::to_bytes(&facts)))?);
        let different = facts.iter().zip(&leaders).find(|(fact, leader)| fact.value != **leader);
        if let Some((fact, leader)) = different {
            return Err(TrainError::RanksDiffer {
                rank: self.rank().index(),
                what: fact.what,
                difference: Fact::difference(&fact.value, leader),
                remedy: fact.remedy,
            });
        }
        self.meet()
    }

    /// Passes a result on, and tells the other ranks of an error: they wait for this one.
    ///
    /// # Errors
    ///
    /// The result's own.
    pub fn tell<T>(&self, result: Result<T, TrainError>) -> Result<T, TrainError> {
        result.inspect_err(|error| self.give_up(error))
    }

    /// Tells the other ranks, which wait for this one, why it goes no further.
    pub fn give_up(&self, error: &(dyn Error + 'static)) {
        let Some(ranks) = &self.ranks else { return };
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            words += &format!(": {error}");
            cause = error.source();
        }
        ranks.group.give_up(&words);
    }
}

/// A port that is taken may be so by a rank 0 of the same job, which listens a moment before it says who it is.
fn told_of(error: TorchExtError, host: &str, port: u16) -> TrainError {
    let is_taken = matches!(error, TorchExtError::PortTaken { .. });
    let leader = || Store::connect(host, port, PEEK)?.get(LEADER, PEEK);
    match is_taken.then(leader) {
        Some(Ok(process)) => {
            let process = String::from_utf8_lossy(&process).into_owned();
            TrainError::LeaderTwice { host: host.to_owned(), port, process }
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use tch::Kind;

    use super::*;
    use crate::Exchange;

    #[test]
    fn a_process_alone_has_everything_and_asks_nobody() {
        let world = World::alone();
        assert!(world.leads() && !world.is_several());
        assert_eq!(world.share(&[5, 1, 9]), [0, 1, 2]);
        assert!((0..3).all(|number| world.takes(number)));
        let mut values = [1.0, f64::NEG_INFINITY];
        world.sum(&mut values).unwrap();
        assert_eq!(values, [1.0, f64::NEG_INFINITY]);
        assert!(world.any(true).unwrap() && !world.any(false).unwrap());
        assert_eq!(world.hear_leader(|| Ok(vec![1, 2])).unwrap(), [1, 2]);
        world.agree(|| panic!("there is nobody to agree with")).unwrap();
    }

    #[test]
    fn one_rank_of_a_world_sums_in_buckets() {
        let place = Place { rank: Rank::ALONE, local_rank: 0, host: "127.0.0.1".to_owned(), port: 0 };
        let world = World::join(&place, Device::Cpu, Duration::from_secs(20)).unwrap();
        let flat = Tensor::arange(23, (Kind::Float, Device::Cpu));
        let before = flat.copy();
        for timing in [Timing::DuringBackward, Timing::AfterBackward] {
            let exchange = Exchange { bucket: NonZeroU32::new(10).unwrap(), timing, ..Exchange::default() };
            let buckets = Buckets::new(&flat, None, Shard::whole(23), exchange);
            let told = world.sum_gradient(buckets, |whole| {
                whole(4, 19);
                Ok("done")
            });
            assert_eq!(told.unwrap(), "done");
            assert!(flat.equal(&before));
        }
        assert_eq!(world.hear_leader(|| Ok(b"words".to_vec())).unwrap(), b"words");
        assert!(!world.leader_finds(|| Ok(false)).unwrap());
        let error = TrainError::NoExamples("none".to_owned());
        assert!(world.tell::<()>(Err(error)).is_err());
        let later = world.meet().unwrap_err().to_string();
        assert!(later.contains("no training example is left: none"), "{later}");
    }

    #[test]
    fn a_bucket_travels_while_others_are_not_whole_yet() {
        two_ranks(|index, world| {
            let flat = Tensor::full([20], index + 1, (Kind::Float, Device::Cpu));
            let exchange = Exchange { bucket: NonZeroU32::new(10).unwrap(), ..Exchange::default() };
            let buckets = Buckets::new(&flat, None, Shard::whole(20), exchange);
            let travelled = world.sum_gradient(buckets, |whole| {
                whole(10, 10);
                let travelled = comes(|| (10..20).all(|at| flat.double_value(&[at]) == 3.0));
                let is_first = flat.double_value(&[0]) == index as f64 + 1.0;
                whole(0, 10);
                Ok(travelled && is_first)
            });
            assert!(travelled.unwrap(), "the last bucket waits for the first");
            assert_eq!(flat.sum(Kind::Float).double_value(&[]), 60.0);
        });
    }

    #[test]
    fn a_piece_travels_while_the_next_is_made() {
        two_ranks(|index, world| {
            let shard = Shard::of(world.rank(), 256, NonZeroU32::new(128).unwrap());
            let [whole, part] = [shard.padded(), shard.length()]
                .map(|length| Tensor::zeros([length], (Kind::Float, Device::Cpu)));
            let mut travelled = Vec::new();
            let gathered = world.gather(shard, &whole, &part, |elements| {
                // The first bucket has the first piece of both.
                let is_there = || whole.double_value(&[0]) == 1.0 && whole.double_value(&[64]) == 2.0;
                travelled.push(elements.start == 0 || comes(is_there));
                let _ = part.narrow(0, elements.start, elements.end - elements.start).fill_(index + 1);
                Ok(())
            });
            gathered.unwrap();
            assert_eq!(travelled, [true, true], "the first piece waits for the second");
            assert_eq!(whole.sum(Kind::Float).double_value(&[]), 384.0);
        });
    }

    /// Whether it comes to be so.
    fn comes(is_so: impl Fn() -> bool) -> bool {
        let began = std::time::Instant::now();
        while !is_so() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        is_so()
    }

    /// Runs `body` on two ranks, each of which knows its number.
    fn two_ranks(body: impl Fn(i64, World) + Sync) {
        let port = test_support::free_port();
        let rank = |index: u16| {
            let host = "127.0.0.1".to_owned();
            let place = Place { rank: Rank::new(index, 2).unwrap(), local_rank: index.into(), host, port };
            body(index.into(), World::join(&place, Device::Cpu, Duration::from_secs(20)).unwrap());
        };
        std::thread::scope(|scope| {
            for index in 0..2 {
                let rank = &rank;
                scope.spawn(move || rank(index));
            }
        });
    }
}
