//! Carries out the steps of a [`Relocation`]: this node changes to another parent that its parent has offered.

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;

use super::Tree;
use super::relocation::{Relocation, Step};
use super::role::{ParentLink, Role};
use crate::forest::context::{LifeStage, TreeCx, TreeTimer};
use crate::forest::neighbours::Link;
use crate::wire::{Attached, Header, Offer};

impl Tree {
    /// The parent wants this node to attach to another one.
    pub(super) fn on_offer(&mut self, cx: &mut TreeCx<'_>, from: NodeId, offer: Offer) {
        if cx.life != LifeStage::Running || cx.ring.contact().is_edge() {
            return;
        }
        let Some(link) = self.role.parent_link() else { return };
        let mine = link.parent == from && link.join == offer.join && self.uplink.join == offer.join;
        let is_member = self.flow.log.copy_state().is_some();
        if !mine || is_member || self.relocation.is_some() || self.flow.log.part().is_none() {
            return;
        }
        let other = |id| id != cx.me && id != from && !self.flow.children.contains(id);
        let offered = offer.parents.into_iter();
        let offered = offered.filter(|parent| other(parent.contact.id()) && !parent.contact.is_edge());
        let (relocation, step) = Relocation::begin(cx.now, cx.numbers, offered.collect());
        self.relocation = Some(Box::new(relocation));
        self.carry_out(cx, step);
    }

    /// The chosen one has taken this node.
    pub(super) fn on_chosen_attached(&mut self, cx: &mut TreeCx<'_>, from: Contact, attached: Attached) {
        let serves = self.is_served_by(cx.me, from.id(), &attached);
        self.relocate(cx, |relocation, _| relocation.on_attached(from, attached, serves));
    }

    /// The old parent has stopped.
    pub(super) fn on_detached(&mut self, cx: &mut TreeCx<'_>, from: NodeId, join: u64, end: Option<u64>) {
        let next = self.flow.log.matched();
        if self.role.parent() == Some(from) {
            self.relocate(cx, |relocation, _| relocation.on_detached(join, end, next));
        }
    }

    /// Lets the move go on, if there is one.
    pub(super) fn relocate(
        &mut self,
        cx: &mut TreeCx<'_>,
        decide: impl FnOnce(&mut Relocation, &mut TreeCx<'_>) -> Step,
    ) {
        let Some(relocation) = &mut self.relocation else { return };
        let step = decide(relocation, cx);
        self.carry_out(cx, step);
    }

    fn carry_out(&mut self, cx: &mut TreeCx<'_>, step: Step) {
        match step {
            Step::Wait => {}
            Step::Probe(offered) => {
                let Some(number) = self.relocation.as_ref().map(|relocation| relocation.number()) else {
                    return;
                };
                cx.timers.set(TreeTimer::Relocate, cx.now + cx.config.tree.probe_wait);
                let probe = Header::CapacityProbe { topic: cx.topic, number };
                offered.into_iter().for_each(|to| cx.tell(to, &probe));
            }
            Step::Ask { to, join } => {
                let join = Header::Join(self.flow.join_message(join, self.role.parent()));
                cx.timers.set(TreeTimer::Relocate, cx.now + cx.config.tree.join_retry);
                cx.tell(to, &join);
            }
            Step::Detach => {
                cx.timers.set(TreeTimer::Relocate, cx.now + cx.config.push.rto_min);
                if let Some(parent) = self.role.parent().and_then(|parent| cx.neighbours.contact(parent)) {
                    let detach = Header::Detach { topic: cx.topic, join: cx.numbers.last_join() };
                    cx.tell(parent, &detach);
                }
            }
            Step::Drain => cx.timers.set(TreeTimer::Relocate, cx.now + cx.config.push.rto_min),
            Step::Switch { told } => self.switch_parent(cx, told),
            Step::Refused => self.on_chosen_refuses(cx),
            Step::Stay => self.end_relocation(cx),
        }
    }

    /// The chosen one becomes the parent, and pushes from here on. `told`: the old one knows that it is none any more.
    fn switch_parent(&mut self, cx: &mut TreeCx<'_>, told: bool) {
        cx.timers.cancel(TreeTimer::Relocate);
        let Some((to, attached)) = self.relocation.take().and_then(|relocation| relocation.into_parent())
        else {
            return;
        };
        let old = self.role.parent();
        let start = attached.start.clone();
        self.uplink.join = attached.join;
        self.role = Role::Child(ParentLink::through(to.id(), cx.now, attached));
        if let Some(old) = old {
            let contact = cx.neighbours.contact(old).filter(|_| !told);
            cx.neighbours.remove(Link::Parent, old, cx.topic);
            if let Some(contact) = contact {
                cx.send_leave(contact, cx.numbers.last_join());
            }
        }
        self.on_link_changed(cx, to, true);
        if let Some(started) = start {
            self.on_started(cx, to.id(), &started);
        }
        self.acknowledge(cx, false);
    }

    /// The old parent is gone, or to be left: if the chosen one has answered, it is the parent now.
    pub(super) fn hurry_relocation(&mut self, cx: &mut TreeCx<'_>) -> bool {
        let ready = self.relocation.as_ref().is_some_and(|relocation| relocation.is_detaching());
        if ready {
            self.switch_parent(cx, false);
        } else {
            self.end_relocation(cx);
        }
        ready
    }

    /// The chosen one does not take this node, or cannot serve it.
    pub(super) fn on_chosen_refuses(&mut self, cx: &mut TreeCx<'_>) {
        let Some(relocation) = &mut self.relocation else { return };
        if relocation.is_detaching() {
            // The old parent has stopped, or is about to: it is asked to go on.
            self.end_relocation(cx);
            return self.rejoin(cx);
        }
        if let Some(to) = relocation.chosen() {
            cx.send_leave(to, cx.numbers.last_join());
        }
        let step = relocation.choose(cx.now, cx.numbers);
        self.carry_out(cx, step);
    }

    /// Stays with the parent.
    pub(super) fn end_relocation(&mut self, cx: &mut TreeCx<'_>) {
        cx.timers.cancel(TreeTimer::Relocate);
        if let Some(to) = self.relocation.take().and_then(|relocation| relocation.chosen()) {
            cx.send_leave(to, cx.numbers.last_join());
        }
    }
}
