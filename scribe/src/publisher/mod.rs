//! The publishers of a node: their messages on the way to the root, and what became of them.

mod topic;

pub(crate) use self::topic::TopicPublisher;
