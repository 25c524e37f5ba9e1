//! Who is right: answers at the instant of their decision, borders and neighbours whenever somebody looks.

use std::collections::BTreeMap;
use std::time::Duration;

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::Peer;
use treecast_overlay::time::Instant;

use super::tally::KEPT;
use super::{Asked, Living};
use crate::check::{Promise, Verdict, o1, o3};
use crate::lab::passages::Decision;

/// Nodes on each side of a key that are asked whether they answer for it.
const NEAR: usize = 8;
/// Likewise, for each border of the ring at a time.
const NEAR_BORDER: usize = 3;

impl Living {
    pub(super) fn judge_decisions(&mut self) {
        let decisions = match &mut self.ring.meter.borrow_mut().passages {
            Some(passages) => std::mem::take(&mut passages.decisions),
            None => return,
        };
        for decision in decisions {
            self.judge(&decision);
        }
    }

    pub(super) fn judge(&mut self, decision: &Decision) {
        let Some(&asked) = self.asked.get(&decision.lookup) else { return };
        let now = self.now();
        if !asked.decided {
            self.measure(&asked, decision);
        }
        let fault = match self.rival(asked.key, decision) {
            Some(other) => Some(format!("{other:?} serves, and is closer or answers, too")),
            None if !decision.serves => Some("it is not the root in its own eyes".to_string()),
            None => None,
        };
        if let Some(fault) = &fault
            && !asked.wrong
        {
            let excused = self.is_excused(asked.key);
            self.tally.wrong += 1;
            self.tally.excused += u64::from(excused);
            if self.tally.words.len() < KEPT {
                let excuse = if excused { " (excused)" } else { "" };
                let Decision { by, slot, .. } = decision;
                let key = asked.key;
                self.tally
                    .words
                    .push(format!("{by:?} (slot {slot}) answers for {key:?} at {now}, but {fault}{excuse}"));
            }
        }
        if let Some(asked) = self.asked.get_mut(&decision.lookup) {
            asked.decided = true;
            asked.wrong |= fault.is_some();
        }
    }

    /// The first decision is where the message was delivered.
    fn measure(&mut self, asked: &Asked, decision: &Decision) {
        let world = &self.ring.world;
        let (from, to) = (asked.slot as usize, decision.slot as usize);
        if from == to || self.ring.is_one_router(from, to) {
            return;
        }
        let direct = world.latency(from, to);
        if direct.is_zero() {
            return;
        }
        let ratio = |time: Duration| (time.as_secs_f64() / direct.as_secs_f64()) as f32;
        let way = decision.way.iter().map(|&(a, b)| world.latency(a as usize, b as usize)).sum();
        self.tally.stretch.push(ratio(self.now() - asked.at));
        self.tally.way_stretch.push(ratio(way));
    }

    /// Another node of the same side whose word on the key counts for as much as that of whoever decided, or
    /// more.
    fn rival(&self, key: Key, decision: &Decision) -> Option<NodeId> {
        let side = self.watch.side(decision.slot as usize);
        self.around(key, side)
            .find(|&(_, slot)| {
                let now = self.ring.world.local_time(slot as usize);
                self.node(slot).is_some_and(|node| o1::outdoes(now, node, decision.by, key))
            })
            .map(|(id, _)| id)
    }

    /// The nodes of one side next to a key, in both directions.
    fn around(&self, key: Key, side: u8) -> impl Iterator<Item = (NodeId, u32)> {
        let same = move |&(_, slot): &(NodeId, u32)| self.watch.side(slot as usize) == side;
        let behind = self.roster.counterclockwise(key).filter(same).take(NEAR);
        self.roster.clockwise(key).filter(same).take(NEAR).chain(behind)
    }

    /// Promise O1 at this instant: keys at the borders between nodes, on each side, where one node's answer is
    /// outdone by another's.
    pub fn breaches(&self) -> Vec<(Key, String)> {
        let mut sides: BTreeMap<u8, Vec<(NodeId, Instant, &Node)>> = BTreeMap::new();
        for (id, slot) in self.roster.iter() {
            if let Some(node) = self.node(slot) {
                let now = self.ring.world.local_time(slot as usize);
                sides.entry(self.watch.side(slot as usize)).or_default().push((id, now, node));
            }
        }
        let mut breaches = Vec::new();
        for nodes in sides.values().filter(|nodes| nodes.len() > 1) {
            let serving: Vec<_> =
                nodes.iter().filter(|(id, now, node)| node.is_root_of(*now, id.key())).copied().collect();
            for (at, &(id, ..)) in nodes.iter().enumerate() {
                let next = nodes[(at + 1) % nodes.len()].0;
                let half = id.0.wrapping_add(next.0.wrapping_sub(id.0) / 2);
                for key in [Key(half), Key(half.wrapping_add(1))] {
                    breaches.extend(self.outdone(key, &serving).map(|what| (key, what)));
                }
            }
        }
        breaches
    }

    /// A node that answers for a key though another is closer, or does too. `serving`: by id.
    fn outdone(&self, key: Key, serving: &[(NodeId, Instant, &Node)]) -> Option<String> {
        let reach = NEAR_BORDER.min(serving.len());
        let at = serving.partition_point(|&(id, ..)| id.key() < key) + serving.len() - reach;
        let near = || (0..2 * reach).map(|i| serving[(at + i) % serving.len()]);
        let claims = near().filter(|&(_, now, node)| node.is_root_of(now, key));
        claims.into_iter().find_map(|(by, ..)| {
            let (other, ..) = near().find(|&(_, now, node)| o1::outdoes(now, node, by, key))?;
            Some(format!(
                "{by:?} answers for {key:?}, but {other:?} is closer or does, too, at {}",
                self.now()
            ))
        })
    }

    /// Whether promise O1 is excused around a key.
    pub fn is_excused(&self, key: Key) -> bool {
        let ready: Vec<NodeId> = self.roster.iter().map(|(id, _)| id).collect();
        self.watch.is_excused(self.now(), key, &ready, &[])
    }

    /// Whether somebody of a side answers for a key.
    pub fn is_claimed(&self, key: Key, side: u8) -> bool {
        self.around(key, side).any(|(_, slot)| self.answers(slot, key))
    }

    /// Whether a node's leases run.
    pub fn serves(&self, slot: u32) -> bool {
        self.node(slot).is_some_and(|node| self.answers(slot, node.peer().id.key()))
    }

    pub(super) fn answers(&self, slot: u32, key: Key) -> bool {
        let now = self.ring.world.local_time(slot as usize);
        self.node(slot).is_some_and(|node| node.is_root_of(now, key))
    }

    /// Promise O3: everybody who lives is on the ring, and it is one.
    pub fn is_whole(&self) -> Verdict {
        self.everybody_is_there()?;
        self.is_one_ring()
    }

    fn everybody_is_there(&self) -> Verdict {
        let waiting = self.ring.stacks().find(|&(slot, _)| self.roster.id(slot as u32).is_none());
        if let Some((slot, stack)) = waiting {
            let (id, standing) = (stack.peer().id, stack.ring().standing());
            return Err(Promise::O3.broken(format!("{id:?} (slot {slot}) is not on the ring: {standing:?}")));
        }
        Ok(())
    }

    /// Promise O3, of all nodes that are on the ring: each has its neighbours, and their leases.
    fn is_one_ring(&self) -> Verdict {
        for (id, slot) in self.roster.iter() {
            self.stands_right(id, slot)?;
        }
        Ok(())
    }

    /// Everybody who lives is on the ring, and has the neighbours that it should have; leases, which loss may let lapse
    /// for a moment at any time, aside.
    pub fn is_in_order(&self) -> Verdict {
        self.everybody_is_there()?;
        match self.roster.iter().find(|&(id, slot)| !self.has_neighbours(id, slot)) {
            Some((id, slot)) => {
                let what = format!("{id:?} (slot {slot}) has wrong neighbours at {}", self.now());
                Err(Promise::O3.broken(what))
            }
            None => Ok(()),
        }
    }

    /// How many nodes have the neighbours that they should have.
    pub fn standing_right(&self) -> usize {
        self.roster.iter().filter(|&(id, slot)| self.has_neighbours(id, slot)).count()
    }

    fn has_neighbours(&self, id: NodeId, slot: u32) -> bool {
        let (Some((left, right)), Some(node)) = (self.roster.neighbours(id), self.node(slot)) else {
            return false;
        };
        let set = node.leaf_set();
        let is = |known: Option<&Peer>, expected: NodeId| {
            known.map(|peer| peer.id) == Some(expected).filter(|&other| other != id)
        };
        is(set.left(), left) && is(set.right(), right)
    }

    fn stands_right(&self, id: NodeId, slot: u32) -> Verdict {
        let (Some((left, right)), Some(node)) = (self.roster.neighbours(id), self.node(slot)) else {
            return Err(Promise::O3.broken(format!("{id:?} is gone")));
        };
        o3::stands_between(self.ring.world.local_time(slot as usize), node, left, right)
    }
}
