//! This node's place in one topic's tree, and its way to the root.

use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Addr, Contact, Peer};
use treecast_overlay::time::Instant;

use super::flow::WayUp;
use super::root_state::RootState;
use crate::forest::context::TreeCx;
use crate::message::Start;
use crate::wire::{Attached, Join, MAX_PATH};

/// This node's place in the tree.
#[derive(Debug)]
pub(crate) enum Role {
    /// It looks for a parent.
    Joining {
        /// The parent that it had, which may not know that it has lost this child.
        former: Option<Box<Contact>>,
    },
    /// It has a parent.
    Child(ParentLink),
    /// It is the root, be it that it prepares its term still.
    Root(Box<RootState>),
}

impl Role {
    /// The link to the parent, if there is one.
    pub(crate) fn parent_link(&self) -> Option<&ParentLink> {
        match self {
            Role::Child(link) => Some(link),
            Role::Joining { .. } | Role::Root(_) => None,
        }
    }

    /// The parent, if there is one.
    pub(crate) fn parent(&self) -> Option<NodeId> {
        self.parent_link().map(|link| link.parent)
    }

    /// From the parent to the root.
    pub(crate) fn path(&self) -> &[NodeId] {
        self.parent_link().map_or(&[], |link| &link.path)
    }

    /// Where the parent says that the root is.
    pub(crate) fn told_root(&self) -> Option<Peer> {
        self.parent_link().and_then(ParentLink::root)
    }

    /// The way to the root, as children are told.
    pub(crate) fn way_up(&self, cx: &TreeCx<'_>) -> WayUp<'_> {
        let root = if self.is_root() { Some(cx.ring.contact().peer) } else { self.told_root() };
        let primary = match self {
            Role::Root(root) => Some(&root.primary).filter(|primary| primary.is_serving()),
            Role::Joining { .. } | Role::Child(_) => None,
        };
        WayUp { path: self.path(), root, primary }
    }

    /// Whether there is a parent that is not the root, as far as it says.
    pub(crate) fn is_by_third(&self) -> bool {
        self.parent().is_some_and(|parent| self.told_root().is_none_or(|root| root.id != parent))
    }

    /// Whether this node is the topic's root, be it that it does not serve yet.
    pub(crate) fn is_root(&self) -> bool {
        matches!(self, Role::Root(_))
    }

    /// Whether this node is the root, and gives no positions yet.
    pub(crate) fn is_preparing(&self) -> bool {
        self.root().is_some_and(|root| !root.primary.is_serving())
    }

    /// The root's state.
    pub(crate) fn root(&self) -> Option<&RootState> {
        match self {
            Role::Root(root) => Some(root),
            Role::Joining { .. } | Role::Child(_) => None,
        }
    }

    /// The root's state.
    pub(crate) fn root_mut(&mut self) -> Option<&mut RootState> {
        match self {
            Role::Root(root) => Some(root),
            Role::Joining { .. } | Role::Child(_) => None,
        }
    }

    /// Whether it looks for a parent.
    pub(crate) fn is_joining(&self) -> bool {
        matches!(self, Role::Joining { .. })
    }

    /// Forgets a root that is down: no other node is known to be the root.
    pub(crate) fn forget_root(&mut self, down: NodeId) {
        if let Role::Child(link) = self
            && link.path.last() == Some(&down)
        {
            link.root = None;
        }
    }

    /// Heap bytes.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Role::Child(link) => {
                let root = link.root.as_ref().map_or(0, |root| size_of_val(&**root));
                size_of_val::<[NodeId]>(&link.path) + root
            }
            Role::Joining { former } => former.as_ref().map_or(0, |former| size_of_val(&**former)),
            Role::Root(root) => size_of_val(&**root),
        }
    }
}

/// A child's way up.
#[derive(Clone, Debug)]
pub(crate) struct ParentLink {
    pub parent: NodeId,
    /// From the parent to the root.
    path: Box<[NodeId]>,
    /// How the path's end is reached, if that is known.
    root: Option<Box<Reach>>,
    since: Instant,
    /// The JOIN to which the parent's last `Attached` belongs.
    pub join: u64,
    /// The number of that `Attached`.
    pub seq: u64,
}

/// A peer whose id stands elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reach {
    incarnation: u64,
    addr: Addr,
}

/// The news in an `Attached` of the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing: it was heard before.
    Old,
    /// How to go on to the root, or nothing but the start.
    Same,
    /// The path to the root.
    Path,
}

impl ParentLink {
    /// The link to a parent that has said this.
    pub(crate) fn through(parent: NodeId, since: Instant, attached: Attached) -> ParentLink {
        // A root that the path does not end at is not believed.
        let end = attached.path.last().copied();
        let root = attached.root.filter(|root| Some(root.id) == end);
        ParentLink {
            parent,
            root: root.map(|peer| Box::new(Reach { incarnation: peer.incarnation, addr: peer.addr })),
            path: attached.path.into_boxed_slice(),
            since,
            join: attached.join,
            seq: attached.seq,
        }
    }

    /// The root, as the parent told.
    fn root(&self) -> Option<Peer> {
        let Reach { incarnation, addr } = **self.root.as_ref()?;
        Some(Peer { id: *self.path.last()?, incarnation, addr })
    }

    /// Takes the parent's news. `reborn`: a later life of the parent, which numbers anew.
    pub(crate) fn update(&mut self, attached: &Attached, reborn: bool) -> News {
        if (attached.join, attached.seq) <= (self.join, self.seq) && !reborn {
            return News::Old;
        }
        let next = ParentLink::through(self.parent, self.since, attached.clone());
        let path_changed = self.path != next.path || self.root != next.root;
        *self = next;
        if path_changed { News::Path } else { News::Same }
    }

    /// Whether the parent has been it for so long.
    pub(crate) fn is_older_than(&self, age: Duration, now: Instant) -> bool {
        now.since(self.since) >= age
    }
}

/// Whether a node that has said this can be above `me`. Promise S1: no node accepts a parent whose last known path to
/// the root contains it.
pub(crate) fn is_above(me: NodeId, attached: &Attached) -> bool {
    !attached.path.contains(&me) && attached.path.len() < MAX_PATH
}

/// The way to the parent, whichever it is: the JOIN that asks for it, and the state that it was told.
#[derive(Debug, Default)]
pub(crate) struct Uplink {
    /// This node's last JOIN for the topic.
    pub join: u64,
    /// The last one that named no mark: a parent that takes it begins this node at the parent's own end.
    markless: u64,
    /// The last one that any node may have answered, though this node is a member.
    by_third: u64,
    /// The root that invited this node to become a member, the JOIN by which it came, and when.
    invited: Option<Box<Invited>>,
    /// Repetitions of it that the parent has not answered.
    unanswered: u8,
    /// It was sent, and waits for its answer.
    is_asked: bool,
    /// The parent before this one, to tell a change from a first attachment.
    last_parent: Option<Option<NodeId>>,
    /// The state that the parent was last told.
    pub told: Told,
    /// The parent was asked to repeat since the last progress.
    asked_again: bool,
}

/// The last invitation that was followed.
#[derive(Clone, Copy, Debug)]
struct Invited {
    root: NodeId,
    /// The JOIN that followed it.
    join: u64,
    at: Instant,
}

/// How far this node is, as its parent was last told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The offset behind this node's last entry.
    pub end: u64,
    /// The offset before which all at and below it have consumed everything.
    pub consumed: u64,
    /// Subscribers at and below it.
    pub subscribers: u64,
}

/// When the parent is to hear how far this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledge {
    Now,
    Soon,
}

impl Uplink {
    /// Repetitions of a JOIN to a silent parent before another one is looked for.
    const PATIENCE: u8 = 3;

    /// So long an invitation is the same as the one before.
    const INVITED: Duration = Duration::from_secs(1);

    /// Repetitions that a member sends to the root alone.
    const ROOT_PATIENCE: u8 = 2;

    /// Heap bytes.
    pub(crate) fn weight(&self) -> usize {
        self.invited.as_ref().map_or(0, |invited| size_of_val(&**invited))
    }

    /// Notes that the current JOIN follows an invitation.
    pub(crate) fn note_invited(&mut self, now: Instant, root: NodeId) {
        self.invited = Some(Box::new(Invited { root, join: self.join, at: now }));
    }

    /// Whether the current JOIN follows an invitation of that root, of late.
    pub(crate) fn is_invited_again(&self, now: Instant, root: NodeId) -> bool {
        self.invited.as_ref().is_some_and(|last| {
            (last.root, last.join) == (root, self.join) && now.since(last.at) < Uplink::INVITED
        })
    }

    /// Notes that the current JOIN is sent, and how.
    pub(crate) fn on_join_sent(&mut self, join: &Join) {
        if !matches!(join.start, Start::After(_)) {
            self.markless = self.join;
        }
        if join.by_third {
            self.by_third = self.join;
        }
        self.is_asked = true;
    }

    /// Whether so many repetitions of the current JOIN were not answered that any node may answer the next one. The root is asked
    /// in between: it may have begun to serve.
    pub(crate) fn is_third_due(&self) -> bool {
        self.unanswered >= Uplink::ROOT_PATIENCE && self.unanswered.is_multiple_of(2)
    }

    /// Whether any node may have answered the current JOIN of this member.
    pub(crate) fn has_asked_thirds(&self) -> bool {
        self.by_third == self.join
    }

    /// Notes that it has to wait: many others are unanswered.
    pub(crate) fn on_join_put_off(&mut self) {
        self.is_asked = false;
    }

    /// Whether the current JOIN was sent without a mark.
    pub(crate) fn is_markless(&self) -> bool {
        self.markless == self.join
    }

    /// How often the current JOIN was repeated without an answer.
    pub(crate) fn repetitions(&self) -> u8 {
        self.unanswered
    }

    /// Notes that the parent has answered, or that another one is looked for. Returns whether an answer was waited for.
    pub(crate) fn answered(&mut self) -> bool {
        self.unanswered = 0;
        std::mem::take(&mut self.is_asked)
    }

    /// Notes that the JOIN was not answered in time, if it was sent. Returns whether a parent that is asked is given up.
    pub(crate) fn on_no_answer(&mut self) -> bool {
        // From there on every other one, as before.
        self.unanswered = self.unanswered.checked_add(self.is_asked.into()).unwrap_or(u8::MAX - 1);
        self.unanswered > Uplink::PATIENCE
    }

    /// Notes the parent; `None`: this node is the root. Returns whether that is a change, and not the first one.
    pub(crate) fn note_parent(&mut self, parent: Option<NodeId>) -> bool {
        self.last_parent.replace(parent).is_some_and(|last| last != parent)
    }

    /// Notes an entry that came behind a hole. Returns whether the parent is to repeat what is missing: once.
    pub(crate) fn on_hole(&mut self) -> bool {
        !std::mem::replace(&mut self.asked_again, true)
    }

    /// Notes an entry that came in its turn: behind a hole that was filled there may be another one. `much`: the parent
    /// waits for the acknowledgement of much.
    pub(crate) fn on_progress(&mut self, has_hole: bool, much: bool) -> Acknowledge {
        self.asked_again = has_hole;
        if much || has_hole { Acknowledge::Now } else { Acknowledge::Soon }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);

    fn attached(seq: u64, path: &[u128]) -> Attached {
        let path = path.iter().map(|&id| NodeId(id)).collect();
        Attached {
            topic: crate::topic::TopicId(treecast_overlay::id::Key(0)),
            join: 5,
            seq,
            path,
            root: None,
            start: None,
        }
    }

    #[test]
    fn an_older_attached_is_void_unless_the_parent_was_born_again() {
        let mut link = ParentLink::through(NodeId(2), Instant::ZERO, attached(7, &[2, 3]));
        assert_eq!(link.update(&attached(7, &[2, 4]), false), News::Old);
        assert_eq!(link.update(&attached(8, &[2, 3]), false), News::Same);
        assert_eq!(link.update(&attached(1, &[2, 4]), true), News::Path);
        assert_eq!(&*link.path, [NodeId(2), NodeId(4)]);
    }

    #[test]
    fn no_node_is_above_one_that_it_is_attached_to_itself() {
        assert!(is_above(ME, &attached(1, &[2, 3])));
        assert!(!is_above(ME, &attached(1, &[2, 1, 3])));
        assert!(!is_above(ME, &attached(1, &[2; MAX_PATH])));
    }

    #[test]
    fn a_parent_is_asked_to_repeat_once_and_given_up_after_three_repetitions() {
        let mut uplink = Uplink::default();
        assert!(uplink.on_hole() && !uplink.on_hole());
        assert_eq!(uplink.on_progress(true, false), Acknowledge::Now, "there is another hole");
        assert!(!uplink.on_hole(), "that one was asked for with the acknowledgement");
        assert_eq!(uplink.on_progress(false, false), Acknowledge::Soon);
        assert!(uplink.on_hole());
        assert!(!uplink.on_no_answer(), "it was not even sent");
        uplink.on_join_sent(&crate::forest::tree::testing::join());
        assert_eq!([0; 4].map(|_| uplink.on_no_answer()), [false, false, false, true]);
        assert!(!uplink.note_parent(Some(ME)), "the first one");
        assert!(uplink.note_parent(None));
    }
}
