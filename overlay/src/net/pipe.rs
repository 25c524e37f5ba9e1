//! One connection as bytes: TLS over a socket, or plain bytes within one process, and the records on it.
//!
//! It uses rustls without tokio-rustls, because so one buffer serves the reads of all connections of a thread, and a batch
//! is written as it is.

use std::cell::RefCell;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::queue::Unit;
use super::records::{Reader, Record};
use crate::peer::Addresses;

/// Bytes read from a socket at once. One such buffer serves all connections of a thread.
const READ: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// A stream of bytes in both directions.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

enum Coding {
    /// Bytes that are written but not sent, and how many of them have gone.
    Plain { unsent: Vec<u8>, gone: usize },
    /// Encrypts and decrypts; keeps what is not sent.
    Tls(Box<rustls::Connection>),
}

/// A connection's stream, its coding, and the records that came over it.
pub(super) struct Pipe {
    stream: Box<dyn ByteStream>,
    coding: Coding,
    reader: Reader,
    /// Bytes that came and were not taken yet.
    pub(super) records: Vec<Record>,
    closed: bool,
}

impl Pipe {
    /// Bytes as they are, within one process.
    pub(super) fn plain(stream: impl ByteStream + 'static, max_frame: usize) -> Pipe {
        Pipe::new(
            Box::new(stream),
            Coding::Plain { unsent: Vec::new(), gone: 0 },
            Reader::new(max_frame, Addresses::Any),
        )
    }

    /// TLS, whose handshake is still to be made by [`progress`](Pipe::progress).
    pub(super) fn tls(
        stream: impl ByteStream + 'static,
        mut tls: rustls::Connection,
        max_frame: usize,
    ) -> Pipe {
        // A writer writes only when nothing is unsent: that is the limit.
        tls.set_buffer_limit(None);
        Pipe::new(Box::new(stream), Coding::Tls(Box::new(tls)), Reader::new(max_frame, Addresses::Public))
    }

    fn new(stream: Box<dyn ByteStream>, coding: Coding, reader: Reader) -> Pipe {
        Pipe { stream, coding, reader, records: Vec::new(), closed: false }
    }

    /// The TLS connection, if it is one.
    pub(super) fn tls_state(&self) -> Option<&rustls::Connection> {
        match &self.coding {
            Coding::Plain { .. } => None,
            Coding::Tls(tls) => Some(tls),
        }
    }

    /// Whether the TLS handshake is still going on.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls_state().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether the other side has closed its direction.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether something is written that the stream has not taken.
    pub(super) fn has_unsent(&self) -> bool {
        match &self.coding {
            Coding::Plain { unsent, .. } => !unsent.is_empty(),
            Coding::Tls(tls) => tls.wants_write(),
        }
    }

    /// Writes units as one; they leave by `progress`.
    pub(super) fn write(&mut self, units: &[Unit]) -> io::Result<()> {
        match &mut self.coding {
            Coding::Plain { unsent, .. } => {
                units.iter().flat_map(Unit::slices).for_each(|slice| unsent.extend_from_slice(&slice));
                Ok(())
            }
            Coding::Tls(tls) => {
                let mut slices: Vec<IoSlice<'_>> = units.iter().flat_map(Unit::slices).collect();
                let mut rest = slices.as_mut_slice();
                IoSlice::advance_slices(&mut rest, 0);
                while !rest.is_empty() {
                    let written = tls.writer().write_vectored(rest)?;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Ok(())
            }
        }
    }

    /// Sends what is unsent, and reads what has come if `read`. Returns when all is sent that was unsent, or when
    /// something was read, or when the other side has closed. Cancel-safe. Gives the bytes of frames that came.
    pub(super) async fn progress(&mut self, read: bool) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_progress(context, read)).await
    }

    fn poll_progress(&mut self, context: &mut Context<'_>, read: bool) -> Poll<io::Result<usize>> {
        let mut progress = false;
        if self.has_unsent() {
            progress = self.poll_send(context)?.is_ready();
        }
        let mut bytes = 0;
        if read
            && !self.closed
            && let Poll::Ready(came) = self.poll_receive(context)
        {
            bytes = match came {
                Ok(bytes) => bytes,
                Err(error) => {
                    // The alert that tells the other side what was wrong, as far as it goes at once.
                    let _ = self.poll_send(context);
                    return Poll::Ready(Err(error));
                }
            };
            progress = true;
        }
        if progress { Poll::Ready(Ok(bytes)) } else { Poll::Pending }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &mut *self.stream;
        match &mut self.coding {
            Coding::Plain { unsent, gone } => {
                while *gone < unsent.len() {
                    *gone += ready!(Pin::new(&mut *stream).poll_write(context, &unsent[*gone..]))?;
                }
                (*unsent, *gone) = (Vec::new(), 0);
            }
            Coding::Tls(tls) => {
                while tls.wants_write() {
                    match tls.write_tls(&mut Sink { stream: &mut *stream, context }) {
                        Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
            }
        }
        Pin::new(stream).poll_flush(context)
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *self.stream).poll_read(context, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                self.closed = true;
            }
            Poll::Ready(self.on_bytes(bytes))
        })
    }

    fn on_bytes(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let (reader, records) = (&mut self.reader, &mut self.records);
        let mut came = 0;
        let mut sink = |plain: &[u8]| {
            came += plain.len();
            reader.read(plain, &mut |record| records.push(record)).map_err(invalid)
        };
        match &mut self.coding {
            Coding::Plain { .. } => sink(bytes)?,
            Coding::Tls(tls) => {
                while !bytes.is_empty() && !self.closed {
                    tls.read_tls(&mut bytes)?;
                    let state = tls.process_new_packets().map_err(invalid)?;
                    self.closed = state.peer_has_closed();
                    drain(tls, state.plaintext_bytes_to_read(), &mut sink)?;
                }
            }
        }
        Ok(came)
    }

    /// Tells the other side that nothing more comes, and closes this direction, once all is sent.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        if let Coding::Tls(tls) = &mut self.coding {
            tls.send_close_notify();
        }
        std::future::poll_fn(|context| {
            ready!(self.poll_send(context))?;
            Pin::new(&mut *self.stream).poll_shutdown(context)
        })
        .await
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn drain(
    tls: &mut rustls::Connection,
    mut left: usize,
    sink: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    use std::io::BufRead;
    let mut plain = tls.reader();
    while left > 0 {
        let chunk = plain.fill_buf()?;
        let len = chunk.len();
        sink(chunk)?;
        plain.consume(len);
        left -= len;
    }
    Ok(())
}

/// An asynchronous stream as rustls wants it: what would wait is an error of kind `WouldBlock`.
struct Sink<'a, 'b> {
    stream: &'a mut dyn ByteStream,
    context: &'a mut Context<'b>,
}

impl Sink<'_, '_> {
    fn or_would_block(written: Poll<io::Result<usize>>) -> io::Result<usize> {
        match written {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Sink<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Sink::or_would_block(Pin::new(&mut *self.stream).poll_write(self.context, bytes))
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        Sink::or_would_block(Pin::new(&mut *self.stream).poll_write_vectored(self.context, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
