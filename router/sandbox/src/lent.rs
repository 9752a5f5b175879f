//! The loan of a batch to the workers' threads while its caller waits.
//!
//! A batch borrows the bytes of its rows from Kafka's records. Copying them only to hand them to another thread would cost as
//! much as a tenth of running the transform, so the threads read them where they are. A loan can be ended while its thread still
//! runs: a thread may be stuck in a built-in function that V8 cannot interrupt. So every look at the batch holds the loan's lock, and
//! [`Lent::end`] waits for the look that is under way. After that the thread finds no batch.

use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::batch::Batch;

/// A batch whose owner waits until the loan has ended.
pub(crate) struct Lent(Mutex<Option<Pointer>>);

struct Pointer(NonNull<Batch<'static>>);

// SAFETY: a `Batch` is shared, never changed, and `&Batch` may be sent to threads: it holds only shared slices, strings, `Backdrop`s,
// which are `Sync`, and an `Arc` of a schema that has no interior mutability.
unsafe impl Send for Pointer {}

impl Lent {
    /// Lends a batch.
    ///
    /// # Safety
    ///
    /// The batch and all that it borrows must stay in place and unchanged until [`end`](Self::end) has returned or this value has been
    /// dropped.
    pub(crate) unsafe fn new(batch: &Batch<'_>) -> Self {
        // The lifetime is forgotten here and comes back, shortened to that of a look, in `with`.
        Self(Mutex::new(Some(Pointer(NonNull::from(batch).cast()))))
    }

    /// Looks at the batch; `None` when the loan has ended. Must not run a transform's code: the loan could not be ended then.
    pub(crate) fn with<R>(&self, look: impl for<'b> FnOnce(&'b Batch<'b>) -> R) -> Option<R> {
        let guard = self.lock();
        let pointer = guard.as_ref()?;
        // SAFETY: the owner keeps the batch until the loan has ended (see `new`), and `end` needs the lock that is held here. The
        // result cannot borrow from the batch, because `look` must accept any lifetime.
        Some(look(unsafe { pointer.0.as_ref() }))
    }

    /// Ends the loan. Waits for a look that is under way.
    pub(crate) fn end(&self) {
        *self.lock() = None;
    }

    /// A panic during a look leaves the pointer as it was.
    fn lock(&self) -> MutexGuard<'_, Option<Pointer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `&Batch` crosses threads: this must keep compiling.
const fn is_sync<T: Sync>() {}
const _: () = is_sync::<Batch<'static>>();
