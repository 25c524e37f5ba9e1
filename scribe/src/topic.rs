//! Topics: names for people, points of the ring for nodes.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use treecast_overlay::id::Key;

/// Longest topic name in bytes.
pub const MAX_TOPIC_NAME: usize = 255;

/// A topic's point on the ring: the first 128 bits of BLAKE3 of (kind, owner if any, name).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicId(pub Key);

impl TopicId {
    /// The key whose root is the topic's root.
    pub fn key(self) -> Key {
        self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

/// A topic: UTF-8, levels separated by `/`, such as `rust/news`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    name: Arc<str>,
    id: TopicId,
}

/// Names the kind of an open topic in the hash that makes its id; owned and private topics will have others.
const OPEN: &[u8] = b"open\0";

impl Topic {
    /// The open topic of this name.
    pub fn new(name: &str) -> Result<Topic, TopicError> {
        let error = |problem| TopicError { name: name.chars().take(64).collect(), problem };
        if name.is_empty() {
            return Err(error("it is empty"));
        }
        if name.len() > MAX_TOPIC_NAME {
            return Err(error("it is longer than 255 bytes"));
        }
        if name.chars().any(char::is_control) {
            return Err(error("it has control characters"));
        }
        if name.split('/').any(str::is_empty) {
            return Err(error("a level is empty: no `/` at the start or end, and no two in a row"));
        }
        Ok(Topic { name: name.into(), id: TopicId(Key::hash(&[OPEN, name.as_bytes()].concat())) })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The point on the ring.
    pub fn id(&self) -> TopicId {
        self.id
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A name that no topic can have.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{}` is not a topic name: {problem}", .name.escape_debug())]
pub struct TopicError {
    name: String,
    problem: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_ids_follow_from_them() {
        assert_eq!(Topic::new("rust/news").unwrap().id(), Topic::new("rust/news").unwrap().id());
        assert_ne!(Topic::new("rust/news").unwrap().id(), Topic::new("rust").unwrap().id());
        for bad in ["", "/a", "a/", "a//b", "a\nb", &"x".repeat(256)] {
            assert!(Topic::new(bad).is_err(), "{bad:?}");
        }
        let error = Topic::new("a\n").unwrap_err().to_string();
        assert_eq!(error, r"`a\n` is not a topic name: it has control characters");
    }
}
