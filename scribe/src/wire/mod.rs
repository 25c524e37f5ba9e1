//! Scribe's messages and their bytes: a header, encoded by postcard, and a payload, the message's uncopied tail. They
//! travel as the payloads of the overlay's frames.

mod codec;
mod header;
mod short;
#[cfg(test)]
mod tests;

pub use codec::{DecodeError, decode, encode};
pub use header::{
    Ack, Attached, Beat, Body, Capacity, Data, Digest, Header, Join, LogTip, MAX_CHUNKS, MAX_DATA_HEADER,
    MAX_MARKS, MAX_NUMBER, MAX_OFFERED, MAX_PATH, MAX_SHARED, Moved, Offer, Offered, Publish, PublishReceipt,
    RefusedReason, Shared, Signature, Started,
};
