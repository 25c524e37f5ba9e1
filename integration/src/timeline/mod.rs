//! Actions on a cluster, and their times: one interpreter for what scenario files say, what the catalogue of faults has, what
//! the swarm's seeds draw, and what sessions of churn come to. An action that lasts for a while is undone when its time is over.

mod action;

use treecast_scribe::Topic;
use treecast_scribe::event::SubscriptionId;

use self::action::Group;
pub use self::action::{Action, DONE, Deed, Split};
use crate::cluster::Cluster;
use crate::node::RingNode;
use crate::world::{Crash, CutId, Faults};

/// A cluster, and what is being done to it.
pub struct Timeline<N: RingNode> {
    /// The nodes.
    pub cluster: Cluster<N>,
    /// The node that failed last.
    pub last: Option<usize>,
    /// Subscriptions that nobody has ended, but for those of stalled applications.
    pub subscriptions: Vec<SubscriptionId>,
    /// Stalled applications, and where they live.
    pub stalled: Vec<(usize, SubscriptionId)>,
    /// Nodes that are cut off from all others.
    islands: Vec<(Vec<usize>, CutId)>,
    /// Other cuts in force.
    splits: Vec<CutId>,
    weather: Faults,
    /// Actions that end what lasts for a while, and when: by whatever the generator counts.
    ends: Vec<(u64, Action)>,
}

/// The action does not fit: nobody is there, or it is so already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit;

type Done = Result<Option<Action>, Misfit>;

fn fits(is_so: bool) -> Result<(), Misfit> {
    is_so.then_some(()).ok_or(Misfit)
}

impl<N: RingNode> Timeline<N> {
    /// Nothing has been done yet.
    pub fn new(cluster: Cluster<N>) -> Timeline<N> {
        Timeline {
            cluster,
            last: None,
            subscriptions: Vec::new(),
            stalled: Vec::new(),
            islands: Vec::new(),
            splits: Vec::new(),
            weather: Faults::default(),
            ends: Vec::new(),
        }
    }

    // Actions that last.

    /// Does something that ends at this point.
    pub fn perform_until(&mut self, end: u64, action: Action) -> Result<(), Misfit> {
        let undo = self.perform(action)?;
        self.ends.extend(undo.map(|undo| (end, undo)));
        Ok(())
    }

    /// When the next of what lasts ends.
    pub fn next_end(&self) -> Option<u64> {
        self.ends.iter().map(|(end, _)| *end).min()
    }

    /// Ends what has lasted long enough.
    pub fn end_due(&mut self, now: u64) {
        for group in [Group::Pauses, Group::Hosts, Group::Cuts] {
            self.end_those(|end, undo| end <= now && undo.group() == group);
        }
    }

    /// Ends all that lasts.
    pub fn end_all(&mut self) {
        for group in [Group::Cuts, Group::Pauses, Group::Hosts] {
            self.end_those(|_, undo| undo.group() == group);
        }
    }

    fn end_those(&mut self, which: impl Fn(u64, &Action) -> bool) {
        let due: Vec<_> = self.ends.extract_if(.., |(end, undo)| which(*end, undo)).collect();
        // Whatever ended by itself meanwhile does not fit any more.
        due.into_iter().for_each(|(_, undo)| drop(self.perform(undo)));
    }

    /// Whether a host is slow, has a clock of its own, or a limited uplink.
    pub fn is_impaired(&self, slot: usize) -> bool {
        self.ends.iter().any(|(_, undo)| undo.repairs(slot))
    }

    /// Whether clocks run at rates of their own.
    pub fn is_drifting(&self) -> bool {
        self.ends.iter().any(|(_, undo)| matches!(undo, Action::Drift(_)))
    }

    /// Whether a node is cut off from all others.
    pub fn stands_apart(&self, slot: usize) -> bool {
        self.islands.iter().any(|(slots, _)| slots.contains(&slot))
    }

    // Words.

    /// Says something, if somebody listens.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        let now = self.cluster.now();
        self.cluster.witness.borrow().tell(|| format!("{now} == {}", what()));
    }

    fn note(&mut self, event: &'static str, what: impl FnOnce() -> String) {
        self.cluster.count(event, 1);
        self.tell(|| format!("{event}: {}", what()));
    }

    fn lives(&self, slot: usize) -> bool {
        self.cluster.world.machine(slot).is_some()
    }

    fn runs(&self, slot: usize) -> bool {
        self.cluster.world.is_running(slot)
    }

    // Doing it.

    /// Does something now. Returns what undoes it, if it lasts.
    pub fn perform(&mut self, action: Action) -> Done {
        match action {
            Action::Crash { slots, how, of_root } => {
                fits(slots.iter().all(|&slot| self.lives(slot)))?;
                self.cluster.count("crash of a root", u64::from(of_root));
                slots.into_iter().for_each(|slot| self.crash(slot, how));
            }
            Action::Restart(slot, through) => {
                fits(!self.lives(slot))?;
                self.note("restart", || format!("slot {slot} through {through:?}"));
                self.cluster.restart(slot, &through);
            }
            Action::Leave(slot) => {
                fits(self.runs(slot))?;
                self.note("leave", || format!("slot {slot}"));
                self.cluster.leave(slot);
                self.last = Some(slot);
            }
            Action::Pause(slots) => return self.pause(slots),
            Action::Resume(slots) => return self.resume(&slots),
            Action::Isolate(slots, side) => return self.isolate(slots, side),
            Action::Rejoin(slots) => return self.rejoin(&slots),
            Action::Sever(split) => return self.sever(&split),
            Action::Heal(Some(cut)) => self.heal(cut),
            Action::Heal(None) => self.splits.clone().into_iter().for_each(|cut| self.heal(cut)),
            Action::Join(None) => {
                self.cluster.join();
            }
            Action::Join(Some(through)) => {
                self.note("late join", || format!("through {through:?}"));
                self.cluster.add(&through);
            }
            Action::JoinEdge(through) => {
                self.note("edge node", || format!("through {through:?}"));
                self.cluster.add_edge(&through);
            }
            Action::Subscribe { slot, topic, takes, late } => {
                fits(self.lives(slot))?;
                self.subscribe(slot, &topic, takes, late);
            }
            Action::Unsubscribe(_) | Action::Unstall(_) => return self.change_subscription(action),
            Action::Publish { slots, topic, bytes, burst } => {
                self.cluster.count("burst", u64::from(burst));
                for slot in slots {
                    self.cluster.publish(slot, &topic, bytes);
                    self.tell(|| format!("slot {slot} publishes on {topic}"));
                }
            }
            Action::LookUp(Some((slot, key))) => self.cluster.look_up(slot, key),
            Action::LookUp(None) => self.cluster.look_up_somewhere(),
            Action::Slow(..) | Action::Drift(_) | Action::JumpClock(..) | Action::Throttle(..) => {
                return self.change_host(action);
            }
            Action::Weather(faults) => {
                self.tell(|| format!("{faults:?}"));
                self.cluster.world.set_faults(faults);
                return Ok(Some(Action::Weather(std::mem::replace(&mut self.weather, faults))));
            }
        }
        Ok(None)
    }

    fn crash(&mut self, slot: usize, how: Crash) {
        let event = match how {
            Crash::Process => "crash of a process",
            Crash::Power => "power failure",
        };
        self.note(event, || format!("slot {slot}"));
        self.cluster.crash(slot, how);
        self.last = Some(slot);
    }

    fn pause(&mut self, slots: Vec<usize>) -> Done {
        fits(slots.iter().all(|&slot| self.runs(slot)))?;
        for &slot in &slots {
            self.note("pause", || format!("slot {slot}"));
            self.cluster.pause(slot);
            self.last = Some(slot);
        }
        Ok(Some(Action::Resume(slots)))
    }

    fn resume(&mut self, slots: &[usize]) -> Done {
        let paused: Vec<usize> =
            slots.iter().copied().filter(|&slot| self.lives(slot) && !self.runs(slot)).collect();
        fits(!paused.is_empty())?;
        for slot in paused {
            self.tell(|| format!("slot {slot} goes on"));
            self.cluster.resume(slot);
        }
        Ok(None)
    }

    fn isolate(&mut self, slots: Vec<usize>, side: u8) -> Done {
        fits(slots.iter().all(|&slot| self.lives(slot) && !self.stands_apart(slot)))?;
        let event = if slots.len() > 1 { "partition of several" } else { "isolation" };
        self.note(event, || format!("slots {slots:?}"));
        let cut = self.cluster.isolate(&slots);
        self.cluster.stand_on(&slots, side);
        self.last = slots.last().copied();
        self.islands.push((slots.clone(), cut));
        Ok(Some(Action::Rejoin(slots)))
    }

    fn rejoin(&mut self, slots: &[usize]) -> Done {
        let place = self.islands.iter().position(|(island, _)| island == slots).ok_or(Misfit)?;
        self.tell(|| format!("slots {slots:?} are reached again"));
        let (slots, cut) = self.islands.remove(place);
        self.cluster.rejoin(&slots, cut);
        Ok(None)
    }

    fn sever(&mut self, split: &Split) -> Done {
        self.note(split.event(), || format!("{split:?}"));
        let cut = self.cluster.cut(split.cut());
        if let Split::Halves { sides, .. } = split {
            self.cluster.watch.sides = sides.clone();
        }
        self.splits.push(cut);
        Ok(Some(Action::Heal(Some(cut))))
    }

    fn heal(&mut self, cut: CutId) {
        self.tell(|| "nodes reach each other again".to_string());
        self.splits.retain(|other| *other != cut);
        self.cluster.heal(cut);
    }

    fn subscribe(&mut self, slot: usize, topic: &Topic, takes: Option<u32>, late: bool) {
        self.cluster.count("late subscription", u64::from(late));
        self.cluster.count("stalled application", u64::from(takes.is_some()));
        let subscription = self.cluster.subscribe_with(slot, topic, takes);
        self.tell(|| format!("slot {slot} subscribes to {topic}, takes {takes:?}"));
        match takes {
            Some(_) => self.stalled.push((slot, subscription)),
            None => self.subscriptions.push(subscription),
        }
    }

    fn change_subscription(&mut self, action: Action) -> Done {
        let lasts = |timeline: &Timeline<N>, id: SubscriptionId| {
            timeline.cluster.history.subscriptions[&id].ended.is_none()
        };
        if let Action::Unsubscribe(id) = action {
            fits(lasts(self, id) && self.runs(self.cluster.history.subscriptions[&id].slot))?;
            self.note("end of a subscription", || format!("{id:?}"));
            self.subscriptions.retain(|other| *other != id);
            self.cluster.unsubscribe(id);
        } else if let Action::Unstall(ids) = action {
            self.stalled.retain(|(_, id)| !ids.contains(id));
            for id in ids.into_iter().filter(|&id| lasts(self, id)).collect::<Vec<_>>() {
                self.tell(|| format!("the application of {id:?} goes on"));
                self.cluster.unstall(id);
            }
        }
        Ok(None)
    }

    fn change_host(&mut self, action: Action) -> Done {
        if let Action::Slow(slot, per_frame) = action {
            if per_frame.is_zero() {
                self.tell(|| format!("slot {slot} is quick again"));
            } else {
                self.note("slow node", || format!("slot {slot}: {per_frame:?} a frame"));
            }
            self.cluster.slow(slot, per_frame);
            return Ok((!per_frame.is_zero()).then_some(Action::Slow(slot, std::time::Duration::ZERO)));
        } else if let Action::Throttle(slot, uplink) = action {
            match uplink {
                Some(uplink) => self.note("limited uplink", || format!("slot {slot}: {uplink:?}")),
                None => self.tell(|| format!("slot {slot} sends without a limit")),
            }
            self.cluster.world.set_uplink(slot, uplink);
            return Ok(uplink.map(|_| Action::Throttle(slot, None)));
        } else if let Action::JumpClock(slots, by) = action {
            fits(slots.iter().all(|&slot| self.lives(slot)))?;
            for slot in slots {
                self.note("clock jump", || format!("slot {slot} by {by:?}"));
                self.cluster.jump_clock(slot, by);
            }
        } else if let Action::Drift(clocks) = action {
            let drifts = clocks.iter().any(|&(_, ppm)| ppm != 0);
            if drifts {
                self.note("clock drift", || format!("{clocks:?}"));
            } else {
                self.tell(|| "clocks run right again".to_string());
            }
            clocks.iter().for_each(|&(slot, ppm)| self.cluster.world.set_drift(slot, ppm));
            let mut right: Vec<(usize, i32)> = clocks.into_iter().map(|(slot, _)| (slot, 0)).collect();
            right.sort_unstable();
            return Ok(drifts.then_some(Action::Drift(right)));
        }
        Ok(None)
    }
}
