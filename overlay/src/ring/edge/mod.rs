//! Edge nodes (design §5): nodes that use the overlay without being on the ring, and the ring nodes that they are attached to.
//! An edge is a [`Contact`](crate::peer::Contact): the peer, and the access node that it is attached to. Tables hold `Peer`s
//! only, so an edge can be in none of them.

mod access;
mod edges;

pub(crate) use self::access::{Access, AccessLost, Attached};
pub(crate) use self::edges::Edges;
