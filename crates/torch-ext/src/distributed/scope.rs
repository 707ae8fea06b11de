//! Asynchronous collectives.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::rc::Rc;

use tch::Tensor;

use super::ffi::WorkHandle;
use super::group::{ProcessGroup, ReduceOp};
use crate::TorchExtError;

/// Starts asynchronous collectives; created by [`ProcessGroup::scope`].
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
/// and must outlive it:
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
    /// Invariant in both lifetimes, like `std::thread::Scope`.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl ProcessGroup {
    /// Runs `body`, which may start collectives without waiting for them. Returns when all of them have ended.
    ///
    /// A collective accesses its tensors from another thread until it has ended. It therefore borrows them for the scope, which
    /// waits for it even if its [`Work`] was forgotten or `body` panics.
    ///
    /// # Errors
    ///
    /// The first error of a collective whose [`Work`] was not waited for.
    pub fn scope<'env, R>(
        &'env self,
        body: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
    ) -> Result<R, TorchExtError> {
        let scope = Scope::new(self);
        // Dropped after the scope in a panic, too, and not accessible to the body.
        let unfinished = scope.unfinished.clone();
        let result = body(&scope);
        unfinished.wait()?;
        Ok(result)
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    fn new(group: &'env ProcessGroup) -> Self {
        let unfinished = Rc::new(Unfinished { group, work: RefCell::default() });
        Self { group, unfinished, scope: PhantomData, env: PhantomData }
    }

    /// Starts [`ProcessGroup::all_reduce`].
    ///
    /// # Errors
    ///
    /// The errors of its start.
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
    /// The errors of its start.
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
    /// The errors of its start.
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
    /// The errors of its start.
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

/// The collectives of a scope.
#[derive(Debug)]
struct Unfinished<'env> {
    group: &'env ProcessGroup,
    work: RefCell<Vec<Rc<Pending>>>,
}

impl Unfinished<'_> {
    /// Waits for all of them, and returns the first error that was not returned before.
    fn wait(&self) -> Result<(), TorchExtError> {
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
    /// Waits for the collectives after a panic of the body, too.
    fn drop(&mut self) {
        // A panic takes precedence over errors.
        let _ = self.wait();
    }
}

/// A pending collective. It ends with its scope, even if this handle is dropped or forgotten.
#[derive(Debug)]
pub struct Work<'scope> {
    group: &'scope ProcessGroup,
    pending: Rc<Pending>,
}

impl Work<'_> {
    /// Blocks until the collective has ended.
    ///
    /// # Errors
    ///
    /// Those of the collective on [`ProcessGroup`].
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
