//! Messages that the command line gives: arguments, and lines of stdin, none longer than it may be.

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader, Stdin};

use crate::failure::Failure;
use crate::options::MessageOptions;

/// Arguments first, then lines of stdin.
pub(crate) struct Messages {
    arguments: std::vec::IntoIter<String>,
    lines: Option<Lines>,
}

impl Messages {
    /// Lines longer than `limit` bytes are refused here, arguments by the node.
    pub(crate) fn new(options: MessageOptions, limit: usize) -> Messages {
        let lines = options.lines.then(|| Lines::of_stdin(limit));
        Messages { arguments: options.message.into_iter(), lines }
    }

    /// The next message, or what is wrong with it; `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Result<Bytes, String>>, Failure> {
        if let Some(text) = self.arguments.next() {
            return Ok(Some(Ok(text.into())));
        }
        let Some(lines) = &mut self.lines else { return Ok(None) };
        let line = lines.next().await.map_err(|error| Failure::Failed(format!("stdin: {error}")))?;
        Ok(line.map(|line| line.map(Bytes::from).map_err(|error| error.to_string())))
    }
}

/// Reads lines; one that is too long is skipped and said to be.
#[derive(Debug)]
pub(crate) struct Lines<R = BufReader<Stdin>> {
    reader: R,
    line: Vec<u8>,
    limit: usize,
    number: u64,
    too_long: bool,
}

/// A line that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number} of stdin is longer than {limit} bytes")]
pub(crate) struct TooLong {
    number: u64,
    limit: usize,
}

impl Lines {
    /// Lines of stdin of at most `limit` bytes each.
    pub(crate) fn of_stdin(limit: usize) -> Lines {
        Lines::new(BufReader::new(tokio::io::stdin()), limit)
    }
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    fn new(reader: R, limit: usize) -> Lines<R> {
        Lines { reader, line: Vec::new(), limit, number: 0, too_long: false }
    }

    /// The next line without its end (`\n` or `\r\n`); `None` at the end of input. Cancel-safe.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Result<Vec<u8>, TooLong>>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                let rest = !self.line.is_empty() || self.too_long;
                return Ok(rest.then(|| self.take()));
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            // One byte more for a `\r` that will be cut.
            if self.line.len() + part.len() > self.limit + 1 {
                self.too_long = true;
                self.line.clear();
            }
            if !self.too_long {
                self.line.extend_from_slice(part);
            }
            let consumed = end.map_or(part.len(), |end| end + 1);
            self.reader.consume(consumed);
            if end.is_some() {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Result<Vec<u8>, TooLong> {
        self.number += 1;
        let mut line = std::mem::take(&mut self.line);
        line.pop_if(|byte| *byte == b'\r');
        let too_long = std::mem::take(&mut self.too_long) || line.len() > self.limit;
        if too_long { Err(TooLong { number: self.number, limit: self.limit }) } else { Ok(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(input: &str, chunk: usize, limit: usize) -> Vec<Result<String, TooLong>> {
        let mut lines = Lines::new(BufReader::with_capacity(chunk, input.as_bytes()), limit);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line.map(|bytes| String::from_utf8(bytes).unwrap()));
        }
        all
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_are_cut() {
        for chunk in 1..9 {
            let lines = read("one\r\n\ntwo\nthree", chunk, 5).await;
            assert_eq!(lines, [Ok("one".into()), Ok("".into()), Ok("two".into()), Ok("three".into())]);
        }
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_named_and_the_next_one_read() {
        for chunk in 1..9 {
            let lines = read("abc\nabcd\nabcdefgh\r\nab\r\nabcde", chunk, 3).await;
            let too_long = |number| Err(TooLong { number, limit: 3 });
            assert_eq!(lines, [Ok("abc".into()), too_long(2), too_long(3), Ok("ab".into()), too_long(5)]);
        }
    }
}
