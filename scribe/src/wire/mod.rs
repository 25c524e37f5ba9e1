//! Scribe's messages and their bytes: a header, encoded by postcard, and a payload, the message's uncopied tail. They
//! travel as the payloads of the overlay's frames.

mod codec;
mod entry;
mod header;
mod lineage;
mod replication;
#[cfg(test)]
mod tests;

pub use codec::{DecodeError, decode, encode};
pub use entry::{Birth, Body, Life, Member, Members};
pub use header::{
    Ack, Attached, Beat, Capacity, Data, Digest, Header, Join, MAX_CONFIGURATIONS, MAX_DATA_HEADER,
    MAX_HOLES, MAX_MARKS, MAX_MEMBERS, MAX_MISSING, MAX_NUMBER, MAX_OFFERED, MAX_PATH, MAX_SHARED, Moved,
    Nack, Offer, Offered, Promise, Publish, PublishReceipt, Pull, RefusedReason, Shared, Signature, Started,
};
pub use lineage::{Ancestor, Lineage, MAX_LINEAGE};
pub use replication::{Configuration, CopyState, Sync, Term};
