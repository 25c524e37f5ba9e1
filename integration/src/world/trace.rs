//! The record of all that happened: a running hash over everything, and the last thousand steps in words.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Addresses;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{self, Frame, KINDS};

/// How many steps are kept for a failure's report.
pub const KEPT_STEPS: usize = 1000;

/// One step, kept small: words are made only when somebody asks.
#[derive(Clone, Debug)]
struct TraceStep {
    number: u64,
    at: Instant,
    slot: u32,
    what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Start {
        id: NodeId,
    },
    Stop,
    Crash {
        silent: bool,
    },
    Pause,
    Resume,
    Command,
    Timeout {
        spurious: bool,
    },
    /// A turn ended late.
    TurnEnd,
    Frame {
        from: u32,
        note: Note,
    },
    Lost {
        to: u32,
        note: Note,
        why: Loss,
    },
    Up {
        with: u32,
        generation: u64,
    },
    Down {
        with: u32,
        generation: u64,
    },
    Refused {
        why: &'static str,
    },
    Queued {
        bytes: usize,
    },
    Stored {
        token: u64,
    },
    /// Counts of all that a node handed out in answer to the step before.
    Drained {
        frames: u32,
        events: u32,
        stores: u32,
    },
}

/// The trace's note of a frame, from when it is sent until it has arrived.
#[derive(Clone, Debug)]
pub(super) struct Note {
    /// Counts the frames that were sent. Their bytes are hashed then; later the number stands for them.
    number: u64,
    /// The encoded header, for the words; empty where frames are moved as values.
    head: Bytes,
    /// Place in [`KINDS`].
    kind: u8,
    header: u32,
    payload: u32,
}

impl Note {
    /// Bytes of the whole frame.
    pub(super) fn length(&self) -> usize {
        self.header as usize + self.payload as usize
    }
}

/// Why a frame did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    Dice,
    Cut,
    NobodyThere,
    Backlog,
    Undialled,
    TooLarge,
    Uplink,
}

/// Bytes that are gathered before they are hashed: enough for BLAKE3 to take many blocks at once.
const BATCH: usize = 64 * 1024;

/// Hears each step: its number, and what happened, in words.
pub(super) type Listener = Box<dyn FnMut(u64, &dyn fmt::Display)>;

/// The hash and the ring of last steps.
pub(super) struct Trace {
    hasher: blake3::Hasher,
    /// Bytes that are not hashed yet.
    batch: Vec<u8>,
    frames: u64,
    steps: u64,
    last: VecDeque<TraceStep>,
    pub(super) listener: Option<Listener>,
}

impl Trace {
    pub(super) fn new(seed: u64) -> Trace {
        let mut batch = Vec::with_capacity(BATCH);
        batch.extend(seed.to_le_bytes());
        let last = VecDeque::with_capacity(KEPT_STEPS);
        Trace { hasher: blake3::Hasher::new(), batch, frames: 0, steps: 0, last, listener: None }
    }

    /// Notes a frame that a node hands out: its bytes go into the hash. `kept` is the header's bytes once more, if they
    /// are kept for the words.
    pub(super) fn sent(&mut self, at: Instant, slot: usize, frame: &Frame, head: &[u8], kept: Bytes) -> Note {
        self.frames += 1;
        let payload = frame.payload.len() as u32;
        self.hash(at, slot, (14, head.len() as u64, u64::from(payload)));
        self.take_in(head);
        self.take_in(&frame.payload);
        let (kind, header) = (frame.header.kind() as u8, head.len() as u32);
        Note { number: self.frames, head: kept, kind, header, payload }
    }

    /// Notes a step, before it is carried out: should it panic, it is the last one of the report.
    pub(super) fn record(&mut self, at: Instant, slot: usize, what: What) {
        self.hash(at, slot, what.words());
        if let What::Start { id } = &what {
            self.take_in(&id.0.to_le_bytes());
        }
        self.steps += 1;
        if self.last.len() == KEPT_STEPS {
            self.last.pop_front();
        }
        let step = TraceStep { number: self.steps, at, slot: slot as u32, what };
        if let Some(listener) = &mut self.listener {
            listener(step.number, &step);
        }
        self.last.push_back(step);
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn hash_so_far(&self) -> String {
        self.hasher.clone().update(&self.batch).finalize().to_hex().to_string()
    }

    pub(super) fn bytes(&self) -> usize {
        self.batch.capacity() + self.last.capacity() * size_of::<TraceStep>()
    }

    /// Lengths stand in front of what varies, so that no two runs hash the same bytes by chance.
    fn hash(&mut self, at: Instant, slot: usize, (tag, a, b): (u8, u64, u64)) {
        let mut fixed = [0; 29];
        fixed[..8].copy_from_slice(&at.as_nanos().to_le_bytes());
        fixed[8..12].copy_from_slice(&(slot as u32).to_le_bytes());
        fixed[12] = tag;
        fixed[13..21].copy_from_slice(&a.to_le_bytes());
        fixed[21..].copy_from_slice(&b.to_le_bytes());
        self.take_in(&fixed);
    }

    fn take_in(&mut self, bytes: &[u8]) {
        if self.batch.len() + bytes.len() > BATCH {
            self.hasher.update(&self.batch);
            self.batch.clear();
            if bytes.len() > BATCH {
                self.hasher.update(bytes);
                return;
            }
        }
        self.batch.extend_from_slice(bytes);
    }
}

impl What {
    /// A tag and two numbers, which together tell any two steps apart.
    fn words(&self) -> (u8, u64, u64) {
        match self {
            What::Start { .. } => (0, 0, 0),
            What::Stop => (1, 0, 0),
            What::Crash { silent } => (2, u64::from(*silent), 0),
            What::Pause => (3, 0, 0),
            What::Resume => (4, 0, 0),
            What::Command => (5, 0, 0),
            What::Timeout { spurious } => (6, u64::from(*spurious), 0),
            What::TurnEnd => (16, 0, 0),
            What::Frame { from, note } => (7, u64::from(*from), note.number),
            What::Lost { to, note, why } => (8, u64::from(*to) << 8 | *why as u64, note.number),
            What::Up { with, generation } => (9, u64::from(*with), *generation),
            What::Down { with, generation } => (10, u64::from(*with), *generation),
            What::Refused { why } => (11, why.len() as u64, why.bytes().map(u64::from).sum()),
            What::Queued { bytes } => (15, *bytes as u64, 0),
            What::Stored { token } => (12, *token, 0),
            What::Drained { frames, events, stores } => {
                (13, u64::from(*frames) << 32 | u64::from(*events), u64::from(*stores))
            }
        }
    }
}

/// The kept steps, oldest first, a line each.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.last.front().filter(|first| first.number > 1) {
            writeln!(f, "… {} earlier steps", first.number - 1)?;
        }
        self.last.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for TraceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7} {:>15} #{:<5} ", self.number, self.at.to_string(), self.slot)?;
        match &self.what {
            What::Start { .. } => f.write_str("starts"),
            What::Stop => f.write_str("stops"),
            What::Crash { silent: false } => f.write_str("crashes"),
            What::Crash { silent: true } => f.write_str("loses power"),
            What::Pause => f.write_str("pauses"),
            What::Resume => f.write_str("resumes"),
            What::Command => f.write_str("gets a command"),
            What::Timeout { spurious: false } => f.write_str("timeout"),
            What::Timeout { spurious: true } => f.write_str("spurious timeout"),
            What::TurnEnd => f.write_str("its turn ends"),
            What::Frame { from, note } => write!(f, "<- #{from} {note}"),
            What::Lost { to, note, why } => write!(f, "-> #{to} lost ({}): {note}", why.words()),
            What::Up { with, generation } => write!(f, "connection {generation} with #{with} is up"),
            What::Down { with, generation } => write!(f, "connection {generation} with #{with} is down"),
            What::Refused { why } => write!(f, "dial refused: {why}"),
            What::Queued { bytes } => write!(f, "{bytes} bytes wait for a peer"),
            What::Stored { token } => write!(f, "record {token} is on disk"),
            What::Drained { frames, events, stores } => {
                write!(f, "   … hands out {frames} frames, {events} events, {stores} records")
            }
        }
    }
}

impl Loss {
    fn words(self) -> &'static str {
        match self {
            Loss::Dice => "dice",
            Loss::Cut => "cut",
            Loss::NobodyThere => "nobody there",
            Loss::Backlog => "backlog of a paused node is full",
            Loss::Undialled => "cannot be dialled",
            Loss::TooLarge => "larger than the frame limit",
            Loss::Uplink => "uplink's queue",
        }
    }
}

/// The header in words, or what kind it is if its bytes were not kept.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match wire::decode(self.head.clone(), Addresses::Any) {
            _ if self.head.is_empty() => f.write_str(KINDS[usize::from(self.kind)])?,
            Ok(Frame { piggyback: Some(words), header, .. }) => write!(f, "{header:?} with {words:?}")?,
            Ok(frame) => write!(f, "{:?}", frame.header)?,
            Err(error) => write!(f, "({error})")?,
        }
        if self.payload > 0 { write!(f, " + {} bytes", self.payload) } else { Ok(()) }
    }
}
