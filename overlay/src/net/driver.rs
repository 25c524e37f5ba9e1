//! Runs a machine: waits for commands, frames and the deadline, hands them in, and carries out what comes back.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;

use super::backlog::Backlog;
use super::clock::Clock;
use super::connection::set;
use super::store::Writer;
use super::transport::{Transport, TransportEvent};
use crate::machine::{Machine, StoreToken};
use crate::time::Instant;

/// Commands that may wait for the driver; a sender waits for room.
pub const MAX_COMMANDS: usize = 1024;
/// Commands handled in one turn.
const COMMANDS_PER_TURN: usize = 64;
/// The same while as much waits as one turn handles: the node is behind, so that the layer above is to wait, too. All that
/// it asks for makes other nodes send something here.
const COMMANDS_WHEN_BEHIND: usize = 1;
/// Transport events handled in one turn; the rest waits for the next turn, behind waiting commands and behind control that
/// has come meanwhile.
const EVENTS_PER_TURN: usize = 256;
/// After so many events the clock is read, and an expired deadline handled, before the next one.
const EVENTS_PER_CLOCK: usize = 32;
/// Longest sleep while a deadline is set: tokio's timers stand still during suspend, the deadline does not.
const MAX_SLEEP: Duration = Duration::from_millis(500);

/// Starts a machine on the current tokio runtime, over a transport. Events are handed to `on_event` on the driver's
/// task: it must not block. `store_in` is the directory for the machine's records, if it keeps any.
///
/// The machine ends, and its transport is closed, by [`Handle::shutdown`], or when the last handle has been dropped
/// and all commands are handled.
pub fn spawn<M, T>(
    machine: M,
    transport: T,
    clock: Clock,
    store_in: Option<PathBuf>,
    on_event: impl FnMut(M::Event) + Send + 'static,
) -> Handle<M::Command>
where
    M: Machine + Send + 'static,
    M::Command: Send + 'static,
    T: Transport,
{
    let (command_sender, commands) = mpsc::channel(MAX_COMMANDS);
    let (stop_sender, stop) = watch::channel(false);
    let (running, ended) = watch::channel(());
    let driver = Driver {
        machine,
        transport,
        clock,
        on_event,
        records: Writer::start(store_in),
        pending: Backlog::default(),
        alarm: Alarm::new(),
    };
    tokio::spawn(async move {
        driver.run(commands, stop).await;
        drop(running);
    });
    Handle { commands: command_sender, stop: Arc::new(stop_sender), ended }
}

/// Gives a running machine its commands.
#[derive(Debug)]
pub struct Handle<C> {
    commands: mpsc::Sender<C>,
    stop: Arc<watch::Sender<bool>>,
    ended: watch::Receiver<()>,
}

impl<C> Clone for Handle<C> {
    fn clone(&self) -> Handle<C> {
        Handle { commands: self.commands.clone(), stop: self.stop.clone(), ended: self.ended.clone() }
    }
}

/// The machine has stopped: it takes no commands any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

/// A command that was not taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<C> {
    /// So many commands wait already: try again later.
    #[error("{MAX_COMMANDS} commands already wait for the node")]
    Full(C),
    /// The machine has stopped.
    #[error("the node has stopped")]
    Stopped(C),
}

impl<C> Handle<C> {
    /// Hands over a command, waiting for room if [`MAX_COMMANDS`] are waiting already.
    pub async fn send(&self, command: C) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }

    /// Hands over a command if there is room.
    pub fn try_send(&self, command: C) -> Result<(), TrySendError<C>> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(command) => TrySendError::Full(command),
            mpsc::error::TrySendError::Closed(command) => TrySendError::Stopped(command),
        })
    }

    /// Whether the machine has stopped.
    pub fn is_stopped(&self) -> bool {
        self.commands.is_closed()
    }

    /// Waits until the machine has stopped and its transport is closed.
    pub async fn stopped(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    /// Stops the machine for all that hold a handle: frames on their way out are still sent, within
    /// [`CLOSE_WITHIN`](super::transport::CLOSE_WITHIN). Commands that still wait are not handled.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        self.stopped().await;
    }
}

struct Driver<M: Machine, T, F> {
    machine: M,
    transport: T,
    clock: Clock,
    on_event: F,
    records: Writer,
    /// Events that are not handled yet.
    pending: Backlog,
    alarm: Alarm,
}

/// The event that ended a wait.
enum Wake<C> {
    Command(Option<C>),
    Batch(Vec<TransportEvent>),
    Stored(StoreToken),
    /// Nothing: the deadline is looked at, and what is pending.
    Look,
    Stop,
}

impl<M, T, F> Driver<M, T, F>
where
    M: Machine,
    T: Transport,
    F: FnMut(M::Event),
{
    async fn run(mut self, mut commands: mpsc::Receiver<M::Command>, mut stop: watch::Receiver<bool>) {
        self.drain();
        loop {
            let wake = self.wait(&mut commands, &mut stop).await;
            let mut now = self.expire();
            match wake {
                Wake::Command(Some(command)) => self.handle_commands(now, command, &mut commands),
                Wake::Batch(batch) => self.pending.add(batch),
                Wake::Stored(token) => {
                    self.machine.handle_stored(now, token);
                    self.drain();
                }
                Wake::Look => {}
                Wake::Command(None) | Wake::Stop => break,
            }
            self.handle_pending(&mut now);
            self.machine.handle_turn_end(now);
            self.drain();
            self.transport.flush();
        }
        commands.close();
        self.transport.close().await;
    }

    /// Waits for the next thing to do; while events are pending, only looks.
    async fn wait(
        &mut self,
        commands: &mut mpsc::Receiver<M::Command>,
        stop: &mut watch::Receiver<bool>,
    ) -> Wake<M::Command> {
        if !self.pending.is_empty() {
            // Other tasks of this thread, the connections' among them, get their turn.
            tokio::task::yield_now().await;
            if *stop.borrow() {
                return Wake::Stop;
            }
            self.take_arrived().await;
            return match commands.try_recv() {
                Ok(command) => Wake::Command(Some(command)),
                Err(mpsc::error::TryRecvError::Empty) => Wake::Look,
                Err(mpsc::error::TryRecvError::Disconnected) => Wake::Command(None),
            };
        }
        self.alarm.set(self.clock.now(), self.machine.poll_timeout());
        tokio::select! {
            command = commands.recv() => Wake::Command(command),
            batch = self.transport.next() => Wake::Batch(batch),
            token = self.records.written() => Wake::Stored(token),
            () = self.alarm.rings() => Wake::Look,
            () = set(stop) => Wake::Stop,
        }
    }

    /// Takes what has arrived meanwhile, without waiting for it: control is not to wait for the data that came before.
    async fn take_arrived(&mut self) {
        if self.pending.holds(EVENTS_PER_TURN) {
            return;
        }
        let arrived = tokio::select! {
            biased;
            batch = self.transport.next() => batch,
            () = std::future::ready(()) => return,
        };
        self.pending.add(arrived);
    }

    /// Reads the clock, and tells the machine if its deadline has passed: expiry comes before any frame.
    fn expire(&mut self) -> Instant {
        let now = self.clock.now();
        if self.machine.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.machine.handle_timeout(now);
            self.drain();
        }
        now
    }

    fn handle_commands(&mut self, now: Instant, first: M::Command, more: &mut mpsc::Receiver<M::Command>) {
        let mut next = Some(first);
        let most = if self.pending.holds(EVENTS_PER_TURN) { COMMANDS_WHEN_BEHIND } else { COMMANDS_PER_TURN };
        for left in (0..most).rev() {
            let Some(command) = next else { return };
            self.machine.handle_command(now, command);
            self.drain();
            next = if left > 0 { more.try_recv().ok() } else { None };
        }
    }

    fn handle_pending(&mut self, now: &mut Instant) {
        for handled in 1..=EVENTS_PER_TURN {
            let Some(event) = self.pending.pop() else { return };
            match event {
                TransportEvent::Frame { from, frame } => self.machine.handle_frame(*now, from, frame),
                TransportEvent::Link(link) => self.machine.handle_link(*now, link),
                TransportEvent::Queued { peer, bytes } => self.machine.handle_queued(*now, peer, bytes),
            }
            self.drain();
            if handled % EVENTS_PER_CLOCK == 0 {
                *now = self.expire();
            }
        }
    }

    /// The drain contract: all three to `None`, after every `handle_*`.
    fn drain(&mut self) {
        while let Some(transmit) = self.machine.poll_transmit() {
            self.transport.send(transmit.to, transmit.frame);
        }
        while let Some(event) = self.machine.poll_event() {
            (self.on_event)(event);
        }
        while let Some(store) = self.machine.poll_store() {
            self.records.write(store);
        }
        debug_assert!(self.machine.poll_transmit().is_none(), "polling events or stores must send nothing");
        debug_assert!(self.machine.poll_event().is_none(), "polling stores must raise no event");
    }
}

/// One timer, set anew only when it would ring too late: machines move their deadlines with every frame, and a
/// spurious ring is cheaper than moving a timer.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    rings_at: Option<Instant>,
}

impl Alarm {
    fn new() -> Alarm {
        Alarm { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), rings_at: None }
    }

    fn set(&mut self, now: Instant, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        let at = deadline.min(now + MAX_SLEEP);
        if self.rings_at.is_none_or(|rings_at| at < rings_at) {
            let late = tokio::time::Instant::now() + at.since(now);
            self.sleep.as_mut().reset(late);
            self.rings_at = Some(at);
        }
    }

    /// Cancel-safe. Never returns if no deadline is set.
    async fn rings(&mut self) {
        if self.rings_at.is_none() {
            return std::future::pending().await;
        }
        self.sleep.as_mut().await;
        self.rings_at = None;
    }
}
