//! What happens in a room, without terminal or network: who is there, what was said, what became of one's own words.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use treecast_scribe::message::{GapReason, Item, Message, PublishError, Receipt};
use treecast_scribe::overlay::id::NodeId;

use super::command::{HELP, Typed};
use super::envelope::{Envelope, EnvelopeKind};
use super::members::{Members, News};
use super::text::{check_nick, fit_nick, harmless};

/// Most entries that are kept; older ones scroll out of memory.
pub(super) const MAX_LOG: usize = 2000;
/// Longest text in bytes.
pub(super) const MAX_TEXT: usize = 4096;
/// Own messages that may wait to come back; further ones are refused until some have.
const MAX_PENDING: usize = 32;
/// Presence that may wait to be sent, beside own messages; beyond, presence is skipped.
const MAX_OUTGOING: usize = 2 * MAX_PENDING;
/// An own message with its receipt that does not come back for so long was taken by a gap: it gets its place anyway.
const ECHO_WITHIN: Duration = Duration::from_secs(5);
/// Signs of life that answer somebody's coming keep at most this distance.
const HERE_DISTANCE: Duration = Duration::from_secs(5);
/// Answers to somebody's coming spread over this time, or longer in a crowd.
const HERE_SPREAD: Duration = Duration::from_millis(1500);
/// So long after coming, it is known who is there.
const LOOK_AROUND: Duration = Duration::from_secs(4);

/// Most lines from before one came that are shown.
pub(super) const HISTORY_LINES: usize = 50;

/// The time, as the conversation needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Now {
    /// Since the chat's start.
    pub(super) uptime: Duration,
    /// Minutes since midnight, local time.
    pub(super) clock: u32,
}

/// A line of the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Minutes since midnight, local time; `None`: it was said before one came, and it is not known when.
    pub(super) clock: Option<u32>,
    pub(super) body: Body,
}

/// What a line of the conversation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Somebody said (or, with `action`, did) something. `delivery` only on one's own words.
    Said { from: NodeId, name: String, text: String, action: bool, delivery: Option<Delivery> },
    /// Something happened in the room.
    Notice(String),
    /// Something is or may be missing.
    Warning(String),
    /// An answer to one's own doing.
    Reply(String),
    /// Stands between what was said before one came, and the rest.
    Divider(&'static str),
}

/// What became of one's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// On its way.
    Pending,
    /// In the room's log; so many others listen, by estimate.
    Delivered { others: u64 },
    /// Nobody knows, or it was refused: why.
    Failed(String),
}

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// Names it in [`Conversation::on_receipt`].
    pub(super) n: u64,
    pub(super) payload: Bytes,
}

/// What a typed line wants beyond the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// Leave the room, if any, and go to this one.
    Enter(String),
    /// Leave the room.
    Leave,
    /// Leave the chat.
    Quit,
}

/// What was said in the room before one came. It is shown when all of it is there.
#[derive(Debug)]
struct History {
    /// The number of one's own arrival: what the room's log has before it is history.
    arrival: u64,
    lines: VecDeque<Entry>,
}

#[derive(Debug)]
struct Own {
    n: u64,
    entry: Entry,
    receipt_at: Option<Duration>,
}

/// One person's view of one room at a time.
#[derive(Debug)]
pub(super) struct Conversation {
    me: NodeId,
    nick: String,
    room: Option<String>,
    members: Members,
    log: VecDeque<(Option<u64>, Entry)>,
    appended: u64,
    /// `None` once it is shown.
    history: Option<History>,
    pending: VecDeque<Own>,
    outgoing: VecDeque<Outgoing>,
    last_n: u64,
    failures: u64,
    last_here: Duration,
    next_here: Duration,
    look_around: Option<Duration>,
    /// Somebody spoke a newer dialect; said once per room.
    newer_seen: bool,
}

impl Conversation {
    /// A conversation of node `me` under a nick that [`check_nick`] allows. Its messages have numbers above `number`, which
    /// is to be greater than those of the same node's earlier chats: a room may have kept their messages.
    pub(super) fn new(me: NodeId, nick: String, number: u64) -> Conversation {
        Conversation {
            me,
            nick,
            room: None,
            members: Members::default(),
            log: VecDeque::new(),
            appended: 0,
            history: None,
            pending: VecDeque::new(),
            outgoing: VecDeque::new(),
            last_n: number,
            failures: 0,
            last_here: Duration::ZERO,
            next_here: Duration::ZERO,
            look_around: None,
            newer_seen: false,
        }
    }

    pub(super) fn nick(&self) -> &str {
        &self.nick
    }

    pub(super) fn me(&self) -> NodeId {
        self.me
    }

    pub(super) fn room(&self) -> Option<&str> {
        self.room.as_deref()
    }

    /// The others in the room: id and name, by name.
    pub(super) fn others(&self) -> Vec<(NodeId, String)> {
        let mut others: Vec<_> = self.members.iter().map(|(id, nick)| (id, self.name_of(id, nick))).collect();
        others.sort_by_cached_key(|(id, name)| (name.to_lowercase(), *id));
        others
    }

    /// All lines: the log, then one's own words that are not back yet.
    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.log.iter().map(|(_, entry)| entry).chain(self.pending.iter().map(|own| &own.entry))
    }

    /// The lines that came to the log since it had `seen` of them, and the new count.
    pub(super) fn since(&self, seen: u64) -> (Vec<Entry>, u64) {
        let new = usize::try_from(self.appended.saturating_sub(seen)).unwrap_or(usize::MAX);
        let skip = self.log.len().saturating_sub(new);
        (self.log.iter().skip(skip).map(|(_, entry)| entry.clone()).collect(), self.appended)
    }

    /// Whether own words still wait for their fate.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether one more own message may be said now.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < MAX_PENDING
    }

    /// How many own messages had no receipt.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// The next message to publish; it stays until [`sent`](Conversation::sent).
    pub(super) fn next_outgoing(&self) -> Option<&Outgoing> {
        self.outgoing.front()
    }

    /// The next message is on its way; its number.
    pub(super) fn sent(&mut self) -> Option<u64> {
        self.outgoing.pop_front().map(|outgoing| outgoing.n)
    }

    /// The node is in a room now: its subscription has begun.
    pub(super) fn enter(&mut self, now: Now, room: &str) {
        self.leave();
        self.room = Some(room.to_string());
        self.newer_seen = false;
        self.look_around = Some(now.uptime + LOOK_AROUND);
        self.reply(now, format!("you joined #{room} as {}", self.nick));
        let arrival = self.send(EnvelopeKind::Join, "");
        self.history = Some(History { arrival, lines: VecDeque::new() });
        self.alive(now);
    }

    /// The node leaves its room: the last word there, if it was in any.
    pub(super) fn leave(&mut self) -> Option<Bytes> {
        self.room.take()?;
        self.members = Members::default();
        self.look_around = None;
        self.history = None;
        for unsent in std::mem::take(&mut self.outgoing) {
            self.fail(unsent.n, "not sent: the room was left");
        }
        Some(Envelope::new(EnvelopeKind::Leave, &self.nick, "", 0).encode())
    }

    /// A line was typed.
    pub(super) fn on_typed(&mut self, now: Now, typed: Typed) -> Effect {
        match typed {
            Typed::Say(text) => self.say(now, text, false),
            Typed::Me(text) => self.say(now, text, true),
            Typed::Nick(nick) => self.rename(now, nick),
            Typed::Names => self.list_names(now),
            Typed::Help => HELP.iter().for_each(|line| self.reply(now, (*line).to_string())),
            Typed::Wrong(hint) => self.reply(now, hint),
            Typed::Empty => {}
            Typed::Join(room) if Some(room.as_str()) == self.room() => {
                self.reply(now, format!("you are in #{room} already"));
            }
            Typed::Join(room) => return Effect::Enter(room),
            Typed::Leave if self.room.is_none() => self.reply(now, NO_ROOM.to_string()),
            Typed::Leave => return Effect::Leave,
            Typed::Quit => return Effect::Quit,
        }
        Effect::None
    }

    /// The subscription yielded something.
    pub(super) fn on_item(&mut self, now: Now, item: Item) {
        match item {
            Item::Message(message) if message.id.publisher == self.me => self.on_own(&message),
            Item::Message(message) if self.history.is_some() => self.remember(&message),
            Item::Message(message) => self.on_message(now, &message),
            Item::Gap(gap) => {
                let why = match gap.reason {
                    GapReason::TooOld => "this chat was cut off or too slow for a while",
                    GapReason::Unreplicated => "most of the nodes that kept this room are gone",
                    GapReason::OtherLog => "this room was in two parts, and one gave way to the other",
                };
                self.append(now, Body::Warning(format!("messages may be missing here: {why}")));
            }
            Item::ParentChanged(_) => {}
        }
    }

    /// The fate of an own message is known.
    pub(super) fn on_receipt(&mut self, now: Now, n: u64, outcome: &Result<Receipt, PublishError>) {
        let delivery = match outcome {
            // The count has this node in it.
            Ok(receipt) => Delivery::Delivered { others: receipt.listeners.saturating_sub(1) },
            Err(PublishError::OutcomeUnknown { .. }) => Delivery::Failed("outcome unknown".to_string()),
            Err(error) => Delivery::Failed(error.to_string()),
        };
        let failed = outcome.is_err();
        if failed && self.history.as_ref().is_some_and(|history| history.arrival == n) {
            // It will not come back to say where history ends.
            self.show_history();
        }
        let waiting = self.pending.iter().position(|own| own.n == n);
        match waiting {
            Some(at) => {
                self.pending[at].entry.set_delivery(delivery);
                self.pending[at].receipt_at = Some(now.uptime);
                if failed {
                    self.settle(at);
                }
            }
            None => match self.log.iter_mut().rev().find(|(own, _)| *own == Some(n)) {
                Some((_, entry)) => entry.set_delivery(delivery),
                None => return,
            },
        }
        self.failures += u64::from(failed);
    }

    /// Time passed: presence goes out, the silent go, own words that did not come back get their place.
    pub(super) fn on_tick(&mut self, now: Now) {
        while let Some(at) = self
            .pending
            .iter()
            .position(|own| own.receipt_at.is_some_and(|since| since + ECHO_WITHIN <= now.uptime))
        {
            self.settle(at);
        }
        if self.room.is_none() {
            return;
        }
        for (id, nick) in self.members.expire(now.uptime) {
            let name = self.name_of(id, &nick);
            self.append(now, Body::Notice(format!("{name} is gone, without a word")));
        }
        if self.look_around.is_some_and(|at| at <= now.uptime) {
            self.look_around = None;
            // One's own arrival may be on its way still, or lost in a gap.
            self.show_history();
            let text = match self.names() {
                names if names.is_empty() => "nobody else is here yet".to_string(),
                names => format!("here: {names}"),
            };
            self.append(now, Body::Notice(text));
        }
        if self.next_here <= now.uptime {
            self.send(EnvelopeKind::Here, "");
            self.alive(now);
        }
    }

    /// Something that the user should know, from outside of the conversation.
    pub(super) fn warn(&mut self, now: Now, text: String) {
        self.append(now, Body::Warning(text));
    }

    fn say(&mut self, now: Now, text: String, action: bool) {
        let problem = if self.room.is_none() {
            NO_ROOM.to_string()
        } else if text.len() > MAX_TEXT {
            format!("not sent: the message has {} bytes, at most {MAX_TEXT} are allowed", text.len())
        } else if !self.has_room() {
            format!("not sent: {MAX_PENDING} messages are still on their way")
        } else {
            let n = self.send(if action { EnvelopeKind::Me } else { EnvelopeKind::Say }, &text);
            let delivery = Some(Delivery::Pending);
            let body = Body::Said {
                from: self.me,
                name: self.nick.clone(),
                text: harmless(&text),
                action,
                delivery,
            };
            self.pending.push_back(Own {
                n,
                entry: Entry { clock: Some(now.clock), body },
                receipt_at: None,
            });
            self.alive(now);
            return;
        };
        self.failures += 1;
        self.reply(now, problem);
    }

    fn rename(&mut self, now: Now, nick: String) {
        if let Err(problem) = check_nick(&nick) {
            return self.reply(now, problem.to_string());
        }
        let former = std::mem::replace(&mut self.nick, nick);
        self.reply(now, format!("you are {} now", self.nick));
        if self.room.is_some() {
            self.send(EnvelopeKind::Nick, &former);
            self.alive(now);
        }
    }

    fn list_names(&mut self, now: Now) {
        let text = match (self.room(), self.names()) {
            (None, _) => NO_ROOM.to_string(),
            (Some(room), names) if names.is_empty() => format!("in #{room}: you alone"),
            (Some(room), names) => format!("in #{room}: {} (you), {names}", self.nick),
        };
        self.reply(now, text);
    }

    fn names(&self) -> String {
        self.others().into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(", ")
    }

    /// An own message came back: it has its place among the others' now. Or it is one of an earlier chat of this node.
    fn on_own(&mut self, message: &Message) {
        let Some(envelope) = Envelope::decode(&message.payload) else { return };
        match &self.history {
            Some(history) if envelope.n < history.arrival => return self.remember(message),
            Some(_) => self.show_history(),
            None => {}
        }
        if let Some(at) = self.pending.iter().position(|own| own.n == envelope.n) {
            self.settle(at);
        }
    }

    /// Keeps a line from before one came. Presence of that time says nothing of who is there now.
    fn remember(&mut self, message: &Message) {
        let Some(envelope) = Envelope::decode(&message.payload) else { return };
        let from = message.id.publisher;
        let name = match fit_nick(&envelope.nick) {
            Some(nick) => self.name_of(from, &nick),
            None => format!("{from:#}"),
        };
        let Some(history) = &mut self.history else { return };
        if let EnvelopeKind::Say | EnvelopeKind::Me = envelope.kind {
            if history.lines.len() == HISTORY_LINES {
                history.lines.pop_front();
            }
            history.lines.push_back(Entry { clock: None, body: said(from, name, &envelope) });
        }
    }

    /// Shows what was said before one came; all that follows is new.
    fn show_history(&mut self) {
        let Some(History { lines, .. }) = self.history.take() else { return };
        if lines.is_empty() {
            return;
        }
        let divider = |text| Entry { clock: None, body: Body::Divider(text) };
        let all = std::iter::once(divider("earlier")).chain(lines).chain([divider("now")]);
        all.for_each(|entry| self.push((None, entry)));
    }

    fn on_message(&mut self, now: Now, message: &Message) {
        let from = message.id.publisher;
        let Some(envelope) = Envelope::decode(&message.payload) else {
            let text = format!("{from:#} sent {} bytes that are no text", message.payload.len());
            return self.append(now, Body::Notice(text));
        };
        let Some(nick) = fit_nick(&envelope.nick) else {
            // No chat: somebody's `treecast pub`.
            return self.append_said(now, from, format!("{from:#}"), &envelope);
        };
        match envelope.kind {
            EnvelopeKind::Leave => {
                let name = self.name_of(from, &nick);
                if self.members.remove(from) {
                    self.append(now, Body::Notice(format!("{name} left")));
                }
            }
            EnvelopeKind::Say
            | EnvelopeKind::Me
            | EnvelopeKind::Nick
            | EnvelopeKind::Join
            | EnvelopeKind::Here
            | EnvelopeKind::Unknown => {
                self.on_alive(now, from, &nick, &envelope);
            }
        }
    }

    /// Somebody who is in the room did something.
    fn on_alive(&mut self, now: Now, from: NodeId, nick: &str, envelope: &Envelope) {
        let known_as = self.members.nick(from).map(|former| self.name_of(from, former));
        let news = self.members.seen(now.uptime, from, nick);
        let name = self.name_of(from, nick);
        if let (News::Renamed(_), Some(former)) = (&news, known_as) {
            self.append(now, Body::Notice(format!("{former} is {name} now")));
        }
        match envelope.kind {
            EnvelopeKind::Say | EnvelopeKind::Me => self.append_said(now, from, name, envelope),
            EnvelopeKind::Join => {
                if news == News::New {
                    self.append(now, Body::Notice(format!("{name} joined")));
                }
                self.answer_join(now);
            }
            EnvelopeKind::Unknown if !self.newer_seen => {
                self.newer_seen = true;
                let text = format!("{name} uses a newer chat: not all of what it says can be shown here");
                self.append(now, Body::Warning(text));
            }
            EnvelopeKind::Here if news == News::New && self.look_around.is_none() => {
                self.append(now, Body::Notice(format!("{name} is here")));
            }
            EnvelopeKind::Nick | EnvelopeKind::Here | EnvelopeKind::Leave | EnvelopeKind::Unknown => {}
        }
    }

    fn append_said(&mut self, now: Now, from: NodeId, name: String, envelope: &Envelope) {
        self.append(now, said(from, name, envelope));
    }

    /// The name that is shown: the nick, and a piece of the id where two go by the same.
    fn name_of(&self, id: NodeId, nick: &str) -> String {
        if (id != self.me && nick == self.nick) || self.members.is_taken(nick, id) {
            format!("{nick}·{}", &id.to_string()[..4])
        } else {
            nick.to_string()
        }
    }

    /// Somebody came and does not know that this node is there. All others are about to say so too: each waits its
    /// own while, longer in a crowd, and says it once for all who came meanwhile.
    fn answer_join(&mut self, now: Now) {
        let crowds = u32::try_from(self.members.len() / 16 + 1).unwrap_or(u32::MAX);
        let wait = self.jitter(HERE_SPREAD * crowds);
        let distance = HERE_DISTANCE.min(HERE_SPREAD * crowds).min(self.members.period());
        let at = (now.uptime + wait).max(self.last_here + distance);
        self.next_here = self.next_here.min(at);
    }

    /// This node gave a sign of life.
    fn alive(&mut self, now: Now) {
        let period = self.members.period();
        self.last_here = now.uptime;
        self.next_here = now.uptime + period - self.jitter(period / 4);
    }

    /// A share of `most`, different from node to node and from time to time.
    fn jitter(&self, most: Duration) -> Duration {
        let mixed = (self.me.0 as u64 ^ self.last_n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 7;
        most / 1000 * u32::try_from(mixed % 1000).unwrap_or(0)
    }

    fn send(&mut self, kind: EnvelopeKind, text: &str) -> u64 {
        self.last_n += 1;
        if self.outgoing.len() < MAX_OUTGOING {
            let payload = Envelope::new(kind, &self.nick, text, self.last_n).encode();
            self.outgoing.push_back(Outgoing { n: self.last_n, payload });
        }
        self.last_n
    }

    fn fail(&mut self, n: u64, why: &str) {
        if let Some(at) = self.pending.iter().position(|own| own.n == n) {
            self.pending[at].entry.set_delivery(Delivery::Failed(why.to_string()));
            self.settle(at);
            self.failures += 1;
        }
    }

    fn settle(&mut self, at: usize) {
        if let Some(own) = self.pending.remove(at) {
            self.push((Some(own.n), own.entry));
        }
    }

    fn reply(&mut self, now: Now, text: String) {
        self.append(now, Body::Reply(harmless(&text)));
    }

    fn append(&mut self, now: Now, body: Body) {
        self.push((None, Entry { clock: Some(now.clock), body }));
    }

    fn push(&mut self, entry: (Option<u64>, Entry)) {
        if self.log.len() == MAX_LOG {
            self.log.pop_front();
        }
        self.log.push_back(entry);
        self.appended += 1;
    }
}

const NO_ROOM: &str = "you are in no room: /join ROOM";

/// What somebody else said, or one's own words of an earlier chat.
fn said(from: NodeId, name: String, envelope: &Envelope) -> Body {
    let text: String = harmless(&envelope.text).chars().take(MAX_TEXT).collect();
    Body::Said { from, name, text, action: envelope.kind == EnvelopeKind::Me, delivery: None }
}

impl Entry {
    /// Whether it was said before one came.
    pub(super) fn is_earlier(&self) -> bool {
        self.clock.is_none()
    }

    fn set_delivery(&mut self, to: Delivery) {
        if let Body::Said { delivery, .. } = &mut self.body {
            *delivery = Some(to);
        }
    }
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
