//! Collectives that run while something else is done.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::rc::Rc;

use tch::Tensor;

use super::ffi::WorkHandle;
use super::{ProcessGroup, ReduceOp};
use crate::TorchExtError;

/// Where collectives are started that run while something else is done; made by [`ProcessGroup::scope`].
///
/// ```
/// # use std::time::Duration;
/// # use tch::{Kind, Tensor, Device};
/// # use torch_ext::distributed::{ProcessGroup, Rank, ReduceOp, Store};
/// # let timeout = Duration::from_secs(10);
/// # let store = Store::serve("127.0.0.1", 0, timeout)?;
/// # let group = ProcessGroup::gloo(&store, "example", Rank::ALONE, timeout)?;
/// let mut first = Tensor::ones([4], (Kind::Float, Device::Cpu));
/// let mut second = Tensor::ones([2], (Kind::Float, Device::Cpu));
/// group.scope(|scope| {
///     let early = scope.all_reduce(&mut first, ReduceOp::Sum)?;
///     scope.all_reduce(&mut second, ReduceOp::Sum)?;
///     early.wait()
/// })??;
/// assert_eq!(first.double_value(&[0]) + second.double_value(&[0]), 2.0);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// A tensor is borrowed until the scope ends:
///
/// ```compile_fail,E0499
/// # use tch::Tensor;
/// # use torch_ext::distributed::{ProcessGroup, ReduceOp};
/// # fn check(group: &ProcessGroup, mut tensor: Tensor) {
/// let _ = group.scope(|scope| {
///     let work = scope.all_reduce(&mut tensor, ReduceOp::Sum);
///     let _ = tensor.zero_();
/// });
/// # }
/// ```
///
/// and lives longer than it:
///
/// ```compile_fail,E0373
/// # use tch::Tensor;
/// # use torch_ext::distributed::{ProcessGroup, ReduceOp};
/// # fn check(group: &ProcessGroup) {
/// let _ = group.scope(|scope| {
///     let mut tensor = Tensor::from(1.0);
///     std::mem::forget(scope.all_reduce(&mut tensor, ReduceOp::Sum));
/// });
/// # }
/// ```
#[derive(Debug)]
pub struct Scope<'scope, 'env: 'scope> {
    group: &'env ProcessGroup,
    unfinished: Rc<Unfinished<'env>>,
    /// Invariant in both, as `std::thread::Scope`: a longer scope is not a shorter one.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope, 'env> Scope<'scope, 'env> {
    pub(crate) fn new(group: &'env ProcessGroup) -> Self {
        let unfinished = Rc::new(Unfinished { group, work: RefCell::default() });
        Self { group, unfinished, scope: PhantomData, env: PhantomData }
    }

    /// What waits for the scope's work when it is dropped.
    pub(crate) fn unfinished(&self) -> Rc<Unfinished<'env>> {
        self.unfinished.clone()
    }

    /// Starts [`ProcessGroup::all_reduce`].
    ///
    /// # Errors
    ///
    /// Where it cannot begin.
    pub fn all_reduce(
        &'scope self,
        tensor: &'scope mut Tensor,
        operation: ReduceOp,
    ) -> Result<Work<'scope>, TorchExtError> {
        Ok(self.remember(self.group.start_all_reduce(tensor, operation)?))
    }

    /// Starts [`ProcessGroup::reduce_scatter`].
    ///
    /// # Errors
    ///
    /// Where it cannot begin.
    pub fn reduce_scatter(
        &'scope self,
        output: &'scope mut Tensor,
        input: &'scope Tensor,
        operation: ReduceOp,
    ) -> Result<Work<'scope>, TorchExtError> {
        Ok(self.remember(self.group.start_reduce_scatter(output, input, operation)?))
    }

    /// Starts [`ProcessGroup::all_gather`].
    ///
    /// # Errors
    ///
    /// Where it cannot begin.
    pub fn all_gather(
        &'scope self,
        output: &'scope mut Tensor,
        input: &'scope Tensor,
    ) -> Result<Work<'scope>, TorchExtError> {
        Ok(self.remember(self.group.start_all_gather(output, input)?))
    }

    /// Starts [`ProcessGroup::broadcast`].
    ///
    /// # Errors
    ///
    /// Where it cannot begin.
    pub fn broadcast(
        &'scope self,
        tensor: &'scope mut Tensor,
        root: usize,
    ) -> Result<Work<'scope>, TorchExtError> {
        Ok(self.remember(self.group.start_broadcast(tensor, root)?))
    }

    fn remember(&'scope self, handle: WorkHandle) -> Work<'scope> {
        let pending = Rc::new(Pending { handle, waited: Cell::new(false) });
        self.unfinished.work.borrow_mut().push(pending.clone());
        Work { group: self.group, pending }
    }
}

/// The work that a scope started.
#[derive(Debug)]
pub(crate) struct Unfinished<'env> {
    group: &'env ProcessGroup,
    work: RefCell<Vec<Rc<Pending>>>,
}

impl Unfinished<'_> {
    /// Waits for everything, and returns the first error that nobody has heard of.
    pub(crate) fn wait(&self) -> Result<(), TorchExtError> {
        let mut first = Ok(());
        for pending in self.work.take() {
            let ended = pending.wait(self.group);
            if first.is_ok() {
                first = ended;
            }
        }
        first
    }
}

impl Drop for Unfinished<'_> {
    /// Where the scope's body panics, its work is waited for nevertheless.
    fn drop(&mut self) {
        // Whoever panics does not ask for errors.
        let _ = self.wait();
    }
}

/// A collective under way. It ends with its scope, whatever becomes of this handle.
#[derive(Debug)]
pub struct Work<'scope> {
    group: &'scope ProcessGroup,
    pending: Rc<Pending>,
}

impl Work<'_> {
    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// As the collective's own function on [`ProcessGroup`].
    pub fn wait(self) -> Result<(), TorchExtError> {
        self.pending.wait(self.group)
    }
}

#[derive(Debug)]
struct Pending {
    handle: WorkHandle,
    waited: Cell<bool>,
}

impl Pending {
    fn wait(&self, group: &ProcessGroup) -> Result<(), TorchExtError> {
        if self.waited.replace(true) { Ok(()) } else { group.finish(&self.handle) }
    }
}
