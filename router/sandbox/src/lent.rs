//! The loan of a batch to the workers' threads while its caller waits.
//!
//! A batch borrows the bytes of its rows from Kafka's records. Copying them only to hand them to another thread would cost as
//! much as a tenth of running the transform, so the threads read them where they are. What makes that sound is told at
//! [`Lent::new`].

use std::ptr::NonNull;

use crate::batch::Batch;

/// A batch whose owner waits until this is gone.
pub(crate) struct Lent(NonNull<Batch<'static>>);

// SAFETY: a `Batch` is shared, never changed, and `&Batch` may be sent to threads: it holds only shared slices, strings, `Backdrop`s,
// which are `Sync`, and an `Arc` of a schema that has no interior mutability.
unsafe impl Send for Lent {}

impl Lent {
    /// Lends a batch.
    ///
    /// # Safety
    ///
    /// The batch and all that it borrows must stay in place and unchanged until this value has been dropped.
    pub(crate) unsafe fn new(batch: &Batch<'_>) -> Self {
        // The lifetime is forgotten here and comes back, shortened to that of the loan, in `batch`.
        Self(NonNull::from(batch).cast())
    }

    pub(crate) fn batch(&self) -> &Batch<'_> {
        // SAFETY: the owner keeps the batch until this value is dropped (see `new`), and the result cannot outlive it.
        unsafe { self.0.as_ref() }
    }
}

/// `&Batch` crosses threads: this must keep compiling.
const fn is_sync<T: Sync>() {}
const _: () = is_sync::<Batch<'static>>();
