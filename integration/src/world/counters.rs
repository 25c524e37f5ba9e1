//! How many frames of which kind, and what became of them.

use std::fmt;

use treecast_overlay::wire::{Header, KINDS};

/// Tallies of frames. `sent + doubled == delivered + lost +` those still in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Handed out by a node.
    pub sent: u64,
    /// Further copies that the dice made.
    pub doubled: u64,
    /// Handed to a node.
    pub delivered: u64,
    /// Vanished: by the dice, by a cut, or because nobody was there.
    pub lost: u64,
    /// Of those lost: by the dice.
    pub vanished: u64,
    /// Bytes of those sent, without the transport's length prefix and encryption.
    pub bytes: u64,
}

/// A [`Tally`] for each kind of frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    tallies: [Tally; KINDS.len()],
}

impl Counters {
    /// The kinds that occurred.
    pub fn by_kind(&self) -> impl Iterator<Item = (&'static str, Tally)> + '_ {
        KINDS.into_iter().zip(self.tallies).filter(|(_, tally)| *tally != Tally::default())
    }

    /// One kind, by its name in [`KINDS`].
    pub fn of(&self, name: &str) -> Tally {
        let place = KINDS.iter().position(|kind| *kind == name);
        self.tallies[place.unwrap_or_else(|| panic!("`{name}` is no kind of frame: {KINDS:?}"))]
    }

    /// All kinds together.
    pub fn total(&self) -> Tally {
        self.tallies.iter().fold(Tally::default(), |sum, tally| Tally {
            sent: sum.sent + tally.sent,
            doubled: sum.doubled + tally.doubled,
            delivered: sum.delivered + tally.delivered,
            lost: sum.lost + tally.lost,
            vanished: sum.vanished + tally.vanished,
            bytes: sum.bytes + tally.bytes,
        })
    }

    pub(super) fn on(&mut self, header: &Header) -> &mut Tally {
        &mut self.tallies[header.kind()]
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<22}{:>12}{:>12}{:>10}{:>10}{:>14}",
            "frames", "sent", "delivered", "lost", "doubled", "bytes"
        )?;
        for (name, t) in self.by_kind().chain([("total", self.total())]) {
            writeln!(
                f,
                "{name:<22}{:>12}{:>12}{:>10}{:>10}{:>14}",
                t.sent, t.delivered, t.lost, t.doubled, t.bytes
            )?;
        }
        Ok(())
    }
}
