//! The queue towards one peer: control and data apart, small frames gathered, large payloads in fragments and uncopied.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::records::{HEAD, MAX_BODY, frame_head};
use super::transport::{Limits, QUEUED_STEP};
use crate::wire::{Frame, encode_head};

/// Frames up to this size are gathered into batches by a copy; payloads of larger ones are shared.
const COPY_UP_TO: usize = 8 * 1024;
/// Size of a batch: what fits into one TLS record.
const BATCH: usize = 16 * 1024;
/// Bytes that the header of a small frame hardly exceeds.
const HEADROOM: usize = 128;

/// Part of a stream of records, never split on its way out.
#[derive(Debug)]
pub(super) struct Unit {
    /// Whole records; or, before a body, the head of one.
    head: Vec<u8>,
    /// The rest of the head's record.
    body: Bytes,
    frames: usize,
    /// The frame goes on in the next unit of the same class.
    more: bool,
}

impl Unit {
    /// A record that is no frame.
    pub(super) fn word(record: Vec<u8>) -> Unit {
        Unit { head: record, body: Bytes::new(), frames: 0, more: false }
    }

    fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether a frame with a payload of `len` bytes may be appended.
    fn has_room(&self, len: usize) -> bool {
        self.body.is_empty() && self.head.len() + len + HEADROOM <= BATCH
    }

    /// The unit's bytes, uncopied.
    pub(super) fn slices(&self) -> [IoSlice<'_>; 2] {
        [IoSlice::new(&self.head), IoSlice::new(&self.body)]
    }
}

#[derive(Debug, Default)]
struct Lane {
    units: VecDeque<Unit>,
    bytes: usize,
    frames: usize,
}

impl Lane {
    fn push(&mut self, unit: Unit) {
        self.bytes += unit.len();
        self.frames += unit.frames;
        self.units.push_back(unit);
    }

    fn pop(&mut self) -> Option<Unit> {
        let unit = self.units.pop_front()?;
        self.bytes -= unit.len();
        self.frames -= unit.frames;
        Some(unit)
    }
}

#[derive(Debug, Default)]
struct State {
    control: Lane,
    data: Lane,
    /// The data level from which the next step is measured.
    base: usize,
    /// The data level that was last told.
    told: usize,
    /// The connection that has sent the first part of a data frame, and must send the rest.
    inside: Option<u64>,
    /// Something was pushed since the last `wake`.
    dirty: bool,
}

/// The fate of a pushed frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits. `wake` is due if it was not before.
    Queued {
        /// The queue became dirty by this push.
        first: bool,
        /// The data level, if it is to be told.
        level: Option<usize>,
    },
    /// Too much data waits already: the frame is gone.
    DataFull,
    /// Too much control waits already: the frame is gone.
    ControlFull,
    /// The frame is over the limit, and gone.
    TooLarge {
        /// Its size in bytes.
        len: usize,
    },
}

/// Frames for one peer. The transport pushes, the peer's connection takes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    ready: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned queue is still whole: no code between lock and unlock leaves it half changed by a panic of ours.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encodes a frame into the queue.
    pub(super) fn push(&self, frame: &Frame, limits: &Limits) -> Pushed {
        let control = frame.is_control();
        let state = &mut *self.lock();
        let lane = if control { &mut state.control } else { &mut state.data };
        let refused = if frame.payload.len() + HEAD > COPY_UP_TO {
            debug_assert!(!control, "control is small");
            push_large(lane, frame, limits)
        } else {
            push_small(lane, frame, control, limits)
        };
        if let Some(refused) = refused {
            return refused;
        }
        let first = !std::mem::replace(&mut state.dirty, true);
        let level = if state.step() { state.level() } else { None };
        Pushed::Queued { first, level }
    }

    /// Tells the connection that there is something to take.
    pub(super) fn wake(&self) {
        self.lock().dirty = false;
        self.ready.notify_one();
    }

    /// Waits for `wake`. Cancel-safe.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Takes about `budget` bytes for a connection: control first, then data. Gives whether the data level is to be
    /// told.
    pub(super) fn take(&self, connection: u64, budget: usize, units: &mut Vec<Unit>) -> bool {
        let state = &mut *self.lock();
        let mut taken = 0;
        while taken < budget {
            let Some(unit) = state.pop(connection) else { break };
            taken += unit.len();
            units.push(unit);
        }
        state.step()
    }

    /// Takes the rest of the data frame that this connection is inside of, one unit at a time.
    pub(super) fn take_rest(&self, connection: u64) -> Option<Unit> {
        let state = &mut *self.lock();
        if state.inside == Some(connection) { state.pop_data(connection) } else { None }
    }

    /// A connection ends: the rest of the frame that it is inside of is of no use to any other.
    pub(super) fn release(&self, connection: u64) {
        while self.take_rest(connection).is_some() {}
        self.ready.notify_one();
    }

    /// The data level, as it is now and not when its report was asked for; `None` if that is known.
    pub(super) fn level(&self) -> Option<usize> {
        self.lock().level()
    }

    pub(super) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.control.units.is_empty() && state.data.units.is_empty()
    }

    /// Drops all that waits. Gives the data level, unless that is known.
    pub(super) fn clear(&self) -> Option<usize> {
        let state = &mut *self.lock();
        state.control = Lane::default();
        state.data = Lane::default();
        state.inside = None;
        state.level()
    }

    /// Appends what waits in another queue: two destinations turned out to be one peer.
    pub(super) fn absorb(&self, other: &Queue) {
        let (mut theirs, mut ours) = (other.lock(), self.lock());
        while let Some(unit) = theirs.control.pop() {
            ours.control.push(unit);
        }
        while let Some(unit) = theirs.data.pop() {
            ours.data.push(unit);
        }
    }
}

impl State {
    fn pop(&mut self, connection: u64) -> Option<Unit> {
        self.control.pop().or_else(|| self.pop_data(connection))
    }

    fn pop_data(&mut self, connection: u64) -> Option<Unit> {
        if self.inside.is_some_and(|owner| owner != connection) {
            return None;
        }
        let unit = self.data.pop()?;
        self.inside = unit.more.then_some(connection);
        Some(unit)
    }

    /// Whether the data level has moved by a step, or is down to nothing.
    fn step(&mut self) -> bool {
        let level = self.data.bytes;
        let moved = level.abs_diff(self.base) >= QUEUED_STEP || (level == 0 && self.base != 0);
        if moved {
            self.base = level;
        }
        moved
    }

    fn level(&mut self) -> Option<usize> {
        let level = self.data.bytes;
        self.base = level;
        (std::mem::replace(&mut self.told, level) != level).then_some(level)
    }
}

/// Appends a frame to the last batch, or begins a new one.
fn push_small(lane: &mut Lane, frame: &Frame, control: bool, limits: &Limits) -> Option<Pushed> {
    let mut batch = match lane.units.pop_back() {
        Some(unit) if unit.has_room(frame.payload.len()) => {
            lane.bytes -= unit.len();
            lane.frames -= unit.frames;
            unit
        }
        // A peer that lags gets whole batches; one that keeps up gets what its frame needs.
        Some(unit) => {
            lane.units.push_back(unit);
            Unit::word(Vec::with_capacity(BATCH))
        }
        None => Unit::word(Vec::with_capacity(frame.payload.len() + HEADROOM)),
    };
    let start = batch.head.len();
    batch.head.extend_from_slice(&[0; HEAD]);
    batch.head = encode_head(frame, std::mem::take(&mut batch.head));
    batch.head.extend_from_slice(&frame.payload);
    let len = batch.head.len() - start - HEAD;
    let refused = if len > limits.max_frame || len > MAX_BODY {
        Some(Pushed::TooLarge { len })
    } else if control
        && (lane.frames + batch.frames >= limits.control_frames
            || lane.bytes + batch.head.len() > limits.control_bytes)
    {
        Some(Pushed::ControlFull)
    } else if !control && lane.bytes + batch.head.len() > limits.data_limit() + HEAD {
        Some(Pushed::DataFull)
    } else {
        None
    };
    if refused.is_some() {
        batch.head.truncate(start);
    } else {
        batch.head[start..start + HEAD].copy_from_slice(&frame_head(control, false, len));
        batch.frames += 1;
    }
    if !batch.head.is_empty() {
        lane.push(batch);
    }
    refused
}

/// Cuts a frame into records; the payload's bytes are shared, not copied.
fn push_large(lane: &mut Lane, frame: &Frame, limits: &Limits) -> Option<Pushed> {
    let mut head = encode_head(frame, vec![0; HEAD]);
    let header = head.len() - HEAD;
    let len = header + frame.payload.len();
    if len > limits.max_frame || header > MAX_BODY {
        return Some(Pushed::TooLarge { len });
    }
    if lane.bytes + len > limits.data_limit() {
        return Some(Pushed::DataFull);
    }
    let mut rest = frame.payload.clone();
    let mut space = MAX_BODY - header;
    loop {
        let body = rest.split_to(rest.len().min(space));
        let more = !rest.is_empty();
        let record = head.len() - HEAD + body.len();
        head[..HEAD].copy_from_slice(&frame_head(false, more, record));
        lane.push(Unit { head, body, frames: usize::from(!more), more });
        if !more {
            return None;
        }
        (head, space) = (vec![0; HEAD], MAX_BODY);
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::{Reader, Record};
    use super::*;
    use crate::peer::Addresses;
    use crate::wire::{Direct, Header, MAX_CONTROL};

    fn data(len: usize) -> Frame {
        Frame::new(Header::Direct(Direct::Payload), Bytes::from(vec![7; len]))
    }

    fn control(hop: u64) -> Frame {
        Header::HopAck { hop }.into()
    }

    fn take_all(queue: &Queue) -> Vec<Record> {
        let (mut units, mut records) = (Vec::new(), Vec::new());
        queue.take(1, usize::MAX, &mut units);
        let mut reader = Reader::new(64 << 20, Addresses::Any);
        for slice in units.iter().flat_map(Unit::slices) {
            reader.read(&slice, &mut |record| records.push(record)).unwrap();
        }
        records
    }

    fn frames(records: Vec<Record>) -> Vec<Frame> {
        let frame = |record| match record {
            Record::Frame(frame) => Some(frame),
            Record::Hello(_) | Record::Accept | Record::Goodbye(_) => None,
        };
        records.into_iter().filter_map(frame).collect()
    }

    #[test]
    fn frames_of_all_sizes_come_out_whole_with_control_first() {
        let (queue, limits) = (Queue::default(), Limits::default());
        let sizes = [1, 100, 8_000, COPY_UP_TO - 4, COPY_UP_TO, 16_384, 65_534, 65_535, 65_536, 1_000_000];
        for len in sizes {
            assert!(matches!(queue.push(&data(len), &limits), Pushed::Queued { .. }), "{len}");
            queue.push(&control(len as u64), &limits);
        }
        let expected: Vec<Frame> =
            sizes.iter().map(|&len| control(len as u64)).chain(sizes.map(data)).collect();
        assert_eq!(frames(take_all(&queue)), expected);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_small_message_of_the_layer_above_goes_before_its_data() {
        let (queue, limits) = (Queue::default(), Limits::default());
        let frame = |direct, len| Frame::new(Header::Direct(direct), Bytes::from(vec![7; len]));
        let pushed =
            [data(200_000), data(3), frame(Direct::Control, MAX_CONTROL), frame(Direct::Control, 5_000)];
        for frame in &pushed {
            assert!(matches!(queue.push(frame, &limits), Pushed::Queued { .. }));
        }
        let [large, small, control, too_large] = pushed;
        assert_eq!(frames(take_all(&queue)), [control, large, small, too_large]);
    }

    #[test]
    fn limits_hold_for_each_class_apart() {
        let (queue, mut limits) = (Queue::default(), Limits::default());
        limits.data_bytes = 0;
        assert!(matches!(queue.push(&data(1_000_000), &limits), Pushed::Queued { level: Some(_), .. }));
        assert_eq!(queue.push(&data(100_000), &limits), Pushed::DataFull);
        assert_eq!(queue.push(&data(1 << 20), &limits), Pushed::TooLarge { len: (1 << 20) + 2 });
        for hop in 0..4096 {
            assert!(matches!(queue.push(&control(hop), &limits), Pushed::Queued { .. }));
        }
        assert_eq!(queue.push(&control(0), &limits), Pushed::ControlFull);
        assert_eq!(frames(take_all(&queue)).len(), 4097);
    }

    #[test]
    fn only_the_connection_inside_a_frame_takes_its_rest() {
        let (queue, limits) = (Queue::default(), Limits::default());
        queue.push(&data(200_000), &limits);
        queue.push(&data(5), &limits);
        let mut units = Vec::new();
        queue.take(1, 1, &mut units);
        queue.take(2, usize::MAX, &mut units);
        assert_eq!(units.len(), 1);
        queue.release(1);
        queue.take(2, usize::MAX, &mut units);
        assert_eq!(units.len(), 2, "the small frame, and nothing of the large one");
        assert!(queue.is_empty());
    }

    #[test]
    fn levels_are_told_in_steps_and_at_the_end() {
        let (queue, limits) = (Queue::default(), Limits::default());
        let mut told = Vec::new();
        for _ in 0..20 {
            if let Pushed::Queued { level: Some(level), .. } = queue.push(&data(10_000), &limits) {
                told.push(level);
            }
        }
        assert_eq!(told.len(), 2);
        assert!(queue.take(1, usize::MAX, &mut Vec::new()));
        // A frame that is pushed before the level is told counts already, and is told when it has gone.
        queue.push(&data(10), &limits);
        assert_eq!((queue.level(), queue.level()), (Some(16), None));
        assert!(queue.take(1, usize::MAX, &mut Vec::new()));
        assert_eq!(queue.level(), Some(0));
        assert!(!queue.take(1, usize::MAX, &mut Vec::new()));
    }
}
