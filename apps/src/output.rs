//! stdout is data, stderr is talk. Neither a slow nor a closed reader brings the command down.

use std::fmt::Display;
use std::io::Write as _;

use data_encoding::BASE64;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncWriteExt, Stdout};

/// Buffered bytes after which [`Output::is_full`] wants a flush.
const FULL: usize = 64 * 1024;

/// The command's data, line by line.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: Stdout,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are written: a cancelled flush goes on where it was.
    written: usize,
}

/// Nobody reads stdout any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl Output {
    pub(crate) fn new() -> Output {
        Output { stdout: tokio::io::stdout(), buffer: Vec::new(), written: 0 }
    }

    /// Appends a line of text.
    pub(crate) fn text(&mut self, line: impl Display) {
        self.bytes(line.to_string().as_bytes());
    }

    /// Appends a line of whatever bytes.
    pub(crate) fn bytes(&mut self, line: &[u8]) {
        self.buffer.extend_from_slice(line);
        self.buffer.push(b'\n');
    }

    /// Appends a JSON object as a line.
    pub(crate) fn json(&mut self, object: &impl Serialize) {
        serde_json::to_writer(&mut self.buffer, object).expect("objects of ours always encode");
        self.buffer.push(b'\n');
    }

    /// Whether it is time to [`flush`](Output::flush) before more is appended.
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.len() >= FULL
    }

    /// Forgets what was appended and not yet written.
    pub(crate) fn discard(&mut self) {
        self.buffer.clear();
        self.written = 0;
    }

    /// Writes what was appended. Cancel-safe.
    pub(crate) async fn flush(&mut self) -> Result<(), Closed> {
        while self.written < self.buffer.len() {
            let written = self.stdout.write(&self.buffer[self.written..]).await.map_err(|_| Closed)?;
            if written == 0 {
                return Err(Closed);
            }
            self.written += written;
        }
        self.discard();
        self.stdout.flush().await.map_err(|_| Closed)
    }
}

/// A payload as a field of a JSON object: its name, and the text, or base64 if it is none.
pub(crate) fn payload_field(payload: &[u8]) -> (&'static str, Value) {
    match std::str::from_utf8(payload) {
        Ok(text) => ("payload", text.into()),
        Err(_) => ("payload_base64", BASE64.encode(payload).into()),
    }
}

/// Says something to the user, on stderr. If nobody hears, nobody needs to.
pub(crate) fn say(words: impl Display) {
    let _ = writeln!(std::io::stderr(), "{words}");
}
