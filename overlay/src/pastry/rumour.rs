//! Rumours of deaths. Nodes that are near each other have the same near nodes in their routing tables: who finds one of
//! them dead tells the nearest other one, and that one, if it has it too, looks for itself; it tells it on if it waited for more than one silence. So
//! few probes find a death, and few messages meet the dead on their way (the epidemic of Demers et al. 1987, with each
//! step checked: MSPastry §3.1 believes no rumour).

use std::time::Duration;

use super::Node;
use crate::peer::Peer;
use crate::time::Instant;
use crate::wire::Header;

/// How many are told by each that finds it dead (guess: four took 0.12 off a stretch of 2.1 under churn for 0.08
/// messages/s/node; what is left is better spent on probes).
const TOLD: usize = 1;
/// Who was heard so short a while ago is not asked because of a rumour.
const JUST_HEARD: Duration = Duration::from_secs(5);

impl Node {
    /// This node has found one of its routing table dead: the nearest of the others are told.
    pub(super) fn spread_rumour(&mut self, dead: Peer) {
        if !self.is_ready() {
            return;
        }
        for (near, _) in self.partners(0).into_iter().take(TOLD) {
            self.transmit(near, Header::Lost(dead));
        }
    }

    /// A node near this one has found somebody dead.
    pub(super) fn on_lost(&mut self, now: Instant, dead: Peer) {
        let known = self.member(dead.id).filter(|member| member.incarnation <= dead.incarnation);
        if let Some(member) = known.filter(|_| self.liveness.silence(now, dead.id) >= JUST_HEARD) {
            self.look_again(now, member);
        }
    }
}
