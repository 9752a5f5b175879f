//! The HTTP that all destinations share: one client with sane limits, one limiter per account, what becomes of failures, and how batches
//! are sent and mended. A vendor adds its endpoints, its requests and the reading of its answers.
//!
//! A request goes through three doors: the gates of the account and of its limit key (shut while a vendor has asked us to wait), the windows
//! of the limit, and the question whether this process still owns the partition. Only then is it sent. What a failure means for the others is
//! judged in [`health`]. Nothing in here knows a vendor, and nothing retries: a repeat is the send stage's decision, because it keeps the
//! order.
//!
//! ```text
//! Account (address, credentials, limiter, health)          one per account, shared by its destinations
//!    └─ Sender (seat at the limits, where it was refused)  one per destination
//!         └─ Session (first trouble of the account)        one per call of `deliver` or `confirm`
//!              └─ Work (batch, attempts, outcomes)         what a connector speaks to
//! ```
//!
//! # Writing a vendor
//!
//! 1. *Endpoints* are static data: a label, the documented rate, and what the vendor counts together.
//!
//!    ```ignore
//!    const FIVE: Rate = Rate { windows: &[Window::per_second(5)] };
//!    static BULK: Endpoint = Endpoint::new("POST /api/users/bulkUpdate", FIVE).scopes(&["users:write"]);
//!    ```
//!
//! 2. A type implements [`Vendor`] where the defaults do not fit: `words` reads an error body, `meaning` overrides the table of statuses
//!    ([`Meaning::of_status`]), `remark` reads what a success left out.
//!
//! 3. The account is made of a [`Setup`]; the destination holds a [`Sender`] and an [`Attempts`].
//!
//!    ```ignore
//!    let credential = Credential::header("api-key", "", &config.api_key)?;
//!    let account = Account::new(Setup { base_url, rate_share, credential, headers: &[], media_type: "application/json",
//!                                       vendor: Box::new(Acme) })?;
//!    let destination = Acme { sender: Sender::new(Arc::new(account)), attempts: Attempts::default() };
//!    ```
//!
//! 4. `deliver` sends a batch in parts. [`cut_by_size`] keeps the vendor's limits and what earlier failures have taught; [`send_parts`] sends
//!    each part, takes out who is refused, halves what is refused as a whole, and reports what failed. `taken` reads an answer that is a
//!    success: it reports those whom the answer names, and everybody else as delivered.
//!
//!    ```ignore
//!    async fn deliver(&self, batch: &[Delivery], outcomes: &Outcomes<'_>, context: &Context<'_>) {
//!        let session = self.sender.session(context);
//!        let work = Work { session: &session, attempts: &self.attempts, batch, outcomes };
//!        work.begin();
//!        let size = Size { count_max: 1_000, bytes_max: 4_000_000, frame_bytes: 16 };
//!        let bytes = |index: usize| batch[index].operation.body.get().len() + 1;
//!        let parts = cut_by_size(&work.all_open(), size, &|index| work.part_max(index), &bytes);
//!        let make = |members: &[usize]| Request::post(&BULK, "/api/users/bulkUpdate", bulk_body(batch, members));
//!        let taken = |members: &[usize], answer: &Answer| {
//!            for (index, reason) in failed_items(answer, members) {
//!                work.set(index, &Outcome::Rejected(reason));
//!            }
//!            work.delivered_all(members, answer.remark());
//!        };
//!        send_parts(work, parts, &make, &opaque, &taken).await;
//!    }
//!    ```
//!
//!    Where there is no bulk call, [`Work::send_one`] sends a request about one delivery and reports everything but a success; [`at_once`]
//!    runs some of them at the same time. A delivery that takes several requests notes in `Attempts` which of them have succeeded.
//!
//! 5. `plan` makes the same requests without sending them, with [`Account::plan`]; `probe` is [`Sender::probe`]; `set_share` is
//!    [`Sender::set_share`]. Answers that save a question are kept in [`Recent`].
//!
//! An answer's secrets are taken out before a vendor's code sees it; [`Halt::ambiguous`] tells that a request may have been carried out,
//! which matters where a repeat is not harmless.

pub mod account;
pub mod attempts;
pub mod client;
pub mod endpoint;
pub mod halt;
pub mod health;
pub mod limit;
pub mod parts;
pub mod recent;
pub mod retry_after;
pub mod sender;
pub mod session;
pub mod vendor;
pub mod work;

pub use account::{Account, Credential, RATE_SHARE, Setup};
pub use attempts::{Attempt, Attempts};
pub use client::{Client, Method, Response, TransportError};
pub use endpoint::{Endpoint, Request, encoded};
pub use halt::Halt;
pub use health::{Health, Trouble};
pub use limit::{Closed, Gate, Limiter, Rate, Seat, Window};
pub use parts::{REPAIRS_MAX, Refusal, Size, cut, cut_by_size, named, opaque, send_parts};
pub use recent::Recent;
pub use sender::Sender;
pub use session::{Answer, Session, subject};
pub use vendor::{Meaning, Plain, Vendor};
pub use work::{Work, at_once};
