//! States and steps in words.

use std::fmt;

use treecast_overlay::kbr::RingView;
use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::sides::Sides;
use treecast_overlay::wire::{Admission, Direct, Header};

use super::net::{Flying, Net, Seat, Step};

impl Net {
    /// A step from here.
    pub(super) fn tell(&self, step: &Step) -> String {
        let flying = |frame: usize| &*self.flying()[frame];
        match step {
            Step::Deliver { frame, again } => {
                let which = match (flying(*frame).copy, again) {
                    (true, _) => ", again",
                    (false, true) => ", for the first time",
                    (false, false) => "",
                };
                format!("{}{which}", flying(*frame))
            }
            Step::Lose { frame } => format!("lost: {}", flying(*frame)),
            Step::Pass { crash, start, late } => {
                let mut words = "a quarter of a lease passes".to_string();
                for (at, flying) in self.flying().iter().enumerate() {
                    let fate = if late & 1 << at == 0 { "lost" } else { "late" };
                    words += &format!("; {fate}: {flying}");
                }
                words.extend(crash.map(|slot| format!("; {slot} crashes")));
                let starts = (0..self.seats().len()).filter(|slot| start & 1 << slot != 0);
                words.extend(starts.map(|slot| format!("; {slot} starts")));
                words
            }
        }
    }

    /// Says which node stands where.
    pub(super) fn standings(&self) -> String {
        let seats = self.seats().iter().enumerate().map(|(slot, seat)| match seat {
            Seat::Waiting => format!("{slot} not started"),
            Seat::Crashed(_) => format!("{slot} crashed"),
            Seat::Failed => format!("{slot} failed to start"),
            Seat::Alive(being) => format!("{slot} {}", self.node_state(&being.node)),
        });
        seats.collect::<Vec<_>>().join(" | ")
    }

    fn node_state(&self, node: &Node) -> String {
        let side = |peer: Option<&Peer>| peer.map_or("-".to_string(), who);
        let (left, right) = (side(node.leaf_set().left()), side(node.leaf_set().right()));
        let serves = node.is_root_of(self.now(), node.peer().id.key());
        let serves = if serves { ", answers" } else { "" };
        format!("{:?} between {left} and {right}{serves}", node.node_state())
    }
}

fn who(peer: &Peer) -> String {
    match peer.addr {
        Addr::Memory(slot) => slot.to_string(),
        Addr::Socket(_) | Addr::Unreachable => peer.addr.to_string(),
    }
}

/// Says which leases are meant, if any are.
fn sides(what: &str, sides: Sides) -> String {
    if sides.is_none() { String::new() } else { format!("{what} ({sides:?})") }
}

fn all(peers: &[Peer]) -> String {
    format!("[{}]", peers.iter().map(who).collect::<Vec<_>>().join(" "))
}

impl fmt::Display for Flying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Flying { from, to, frame, .. } = self;
        write!(f, "{from} to {to}: ")?;
        if let Some(words) = &frame.piggyback {
            let ask = words.ask.map(|ask| sides("asks for a lease", ask.lease));
            let grant = words.grant.map(|grant| sides("grants a lease", grant.lease));
            write!(f, "({}) ", ask.into_iter().chain(grant).collect::<Vec<_>>().join(", "))?;
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "others are few")]
        match &frame.header {
            Header::Routed(routed) => write!(f, "{:?} the root of {:?}", routed.purpose, routed.key),
            Header::Direct(Direct::Answer(answer)) => {
                write!(f, "Answer: root {}, leaf set {}", who(&answer.root), all(&answer.leaf_set))
            }
            Header::Probe(probe) => {
                let lease = sides(", asks for a lease", probe.lease);
                let leaf_set = if probe.leaf_set { ", for the leaf set" } else { "" };
                write!(f, "Probe, {:?}{lease}{leaf_set}", probe.node_state)
            }
            Header::ProbeAck(ack) => {
                let lease = sides(", grants a lease", ack.lease);
                let asks = ack.asks.map(|ask| sides(", asks for one", ask.lease)).unwrap_or_default();
                write!(f, "ProbeAck, {:?}{lease}{asks}", ack.node_state)?;
                ack.leaf_set.as_deref().map_or(Ok(()), |peers| write!(f, ", leaf set {}", all(peers)))
            }
            Header::Admission(Admission::Granted { members }) => {
                write!(f, "Granted, leaf set {}", all(members))
            }
            Header::Admission(Admission::NotNeighbour { members }) => {
                write!(f, "NotNeighbour, leaf set {}", all(members))
            }
            Header::Admission(admission) => write!(f, "{admission:?}"),
            Header::JoinCommit { .. } => f.write_str("Commit"),
            Header::JoinCommitted { .. } => f.write_str("Committed"),
            Header::HopAck { .. } => f.write_str("HopAck"),
            Header::LeafSet { members, .. } => write!(f, "LeafSet {}", all(members)),
            header => write!(f, "{header:?}"),
        }
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.standings())
    }
}
