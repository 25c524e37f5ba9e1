//! What happened: a running hash over everything, and the last thousand steps in words.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use treecast_overlay::time::Instant;
use treecast_overlay::wire;

/// How many steps are kept for a failure's report.
pub const KEPT_STEPS: usize = 1000;

/// One step, kept small: words are made only when somebody asks.
#[derive(Clone, Debug)]
struct Step {
    number: u64,
    at: Instant,
    slot: u32,
    what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Start,
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
    Frame {
        from: u32,
        head: Bytes,
        payload: u32,
    },
    Lost {
        to: u32,
        head: Bytes,
        payload: u32,
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
    Stored {
        token: u64,
    },
    /// What a node handed out in answer to the step before.
    Drained {
        frames: u32,
        events: u32,
        stores: u32,
    },
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
}

/// Hears each step: its number, and what happened, in words.
pub(super) type Listener = Box<dyn FnMut(u64, &dyn fmt::Display)>;

/// The hash and the ring of last steps.
pub(super) struct Trace {
    hasher: blake3::Hasher,
    steps: u64,
    last: VecDeque<Step>,
    pub(super) listener: Option<Listener>,
}

impl Trace {
    pub(super) fn new(seed: u64) -> Trace {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        Trace { hasher, steps: 0, last: VecDeque::with_capacity(KEPT_STEPS), listener: None }
    }

    /// Notes a step, before it is carried out: should it panic, it is the last one of the report. The payload of a
    /// frame goes into the hash and is not kept.
    pub(super) fn record(&mut self, at: Instant, slot: usize, what: What, payload: &[u8]) {
        self.hash(at, slot, &what, payload);
        self.steps += 1;
        if self.last.len() == KEPT_STEPS {
            self.last.pop_front();
        }
        let step = Step { number: self.steps, at, slot: slot as u32, what };
        if let Some(listener) = &mut self.listener {
            listener(step.number, &step);
        }
        self.last.push_back(step);
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn hash_so_far(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// Lengths stand in front of what varies, so that no two runs hash the same bytes by chance.
    fn hash(&mut self, at: Instant, slot: usize, what: &What, payload: &[u8]) {
        let (tag, a, b, head) = what.words();
        let mut fixed = [0; 45];
        fixed[..8].copy_from_slice(&at.as_nanos().to_le_bytes());
        fixed[8..12].copy_from_slice(&(slot as u32).to_le_bytes());
        fixed[12] = tag;
        fixed[13..21].copy_from_slice(&a.to_le_bytes());
        fixed[21..29].copy_from_slice(&b.to_le_bytes());
        fixed[29..37].copy_from_slice(&(head.len() as u64).to_le_bytes());
        fixed[37..].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        self.hasher.update(&fixed).update(head).update(payload);
    }
}

impl What {
    /// A tag, two numbers, and bytes, which together tell any two steps apart.
    fn words(&self) -> (u8, u64, u64, &[u8]) {
        match self {
            What::Start => (0, 0, 0, &[]),
            What::Stop => (1, 0, 0, &[]),
            What::Crash { silent } => (2, u64::from(*silent), 0, &[]),
            What::Pause => (3, 0, 0, &[]),
            What::Resume => (4, 0, 0, &[]),
            What::Command => (5, 0, 0, &[]),
            What::Timeout { spurious } => (6, u64::from(*spurious), 0, &[]),
            What::Frame { from, head, .. } => (7, u64::from(*from), 0, head),
            What::Lost { to, head, why, .. } => (8, u64::from(*to), *why as u64, head),
            What::Up { with, generation } => (9, u64::from(*with), *generation, &[]),
            What::Down { with, generation } => (10, u64::from(*with), *generation, &[]),
            What::Refused { why } => (11, 0, 0, why.as_bytes()),
            What::Stored { token } => (12, *token, 0, &[]),
            What::Drained { frames, events, stores } => {
                (13, u64::from(*frames) << 32 | u64::from(*events), u64::from(*stores), &[])
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

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7} {:>15} #{:<5} ", self.number, self.at.to_string(), self.slot)?;
        match &self.what {
            What::Start => f.write_str("starts"),
            What::Stop => f.write_str("stops"),
            What::Crash { silent: false } => f.write_str("crashes"),
            What::Crash { silent: true } => f.write_str("loses power"),
            What::Pause => f.write_str("pauses"),
            What::Resume => f.write_str("resumes"),
            What::Command => f.write_str("gets a command"),
            What::Timeout { spurious: false } => f.write_str("timeout"),
            What::Timeout { spurious: true } => f.write_str("spurious timeout"),
            What::Frame { from, head, payload } => write!(f, "<- #{from} {}", Words(head, *payload)),
            What::Lost { to, head, payload, why } => {
                write!(f, "-> #{to} lost ({}): {}", why.words(), Words(head, *payload))
            }
            What::Up { with, generation } => write!(f, "connection {generation} with #{with} is up"),
            What::Down { with, generation } => write!(f, "connection {generation} with #{with} is down"),
            What::Refused { why } => write!(f, "dial refused: {why}"),
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
        }
    }
}

/// An encoded header, in words.
struct Words<'a>(&'a Bytes, u32);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match wire::decode(self.0.clone()) {
            Ok(frame) => write!(f, "{:?}", frame.header)?,
            Err(error) => write!(f, "({error})")?,
        }
        if self.1 > 0 { write!(f, " + {} bytes", self.1) } else { Ok(()) }
    }
}
