//! One publisher on one topic: its messages on the way to the root, and their outcomes.

mod round_trip;
mod topic;

pub(crate) use self::round_trip::RoundTrip;
pub(crate) use self::topic::{Outgoing, Receipted, TopicPublisher};

use crate::event::Token;
use crate::message::PublishError;

/// Messages that failed, and why.
pub(crate) type Failures = Vec<(Token, PublishError)>;
