//! The task that acts for a node where no handle may wait: it sends the pending commands of subscribers, remembers the
//! node's peers, and leaves in order when the last handle is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use treecast_overlay::net::{DataDir, Handle};
use treecast_overlay::peer::{Addr, Seed};

use super::Stopped;
use super::dispatch::{Dispatch, Waiting};
use crate::event::{Command, Status, Token};

/// How often the peers are written down: they are where the next start looks for its ring.
const REMEMBER_EVERY: Duration = Duration::from_secs(30);
/// How long leaving may take: longer than the core's own patience, so that it ends by itself.
const LEAVE_WITHIN: Duration = Duration::from_secs(6);
/// How long the node's own status may take.
const STATUS_WITHIN: Duration = Duration::from_secs(1);
/// The supervisor's own questions: names that no handle ever gives.
const OWN_TOKEN: Token = Token(u64::MAX);

pub(super) struct Supervisor {
    pub(super) driver: Handle<Command>,
    pub(super) dispatch: Arc<Dispatch>,
    /// Turns true when the node is to leave.
    pub(super) leave: watch::Receiver<bool>,
    /// Turns true when all is over.
    pub(super) ended: watch::Sender<bool>,
    /// The identity's lock and the peers' file; released when the node has ended.
    pub(super) home: Arc<DataDir>,
}

/// The reason to wake.
enum Wake {
    PendingCommands,
    /// Also when the start is done: the neighbours are known then.
    Remember,
    Failed,
    Leave,
    Left,
    DriverEnded,
}

impl Supervisor {
    pub(super) async fn run(mut self) {
        let why = self.keep().await;
        self.driver.clone().shutdown().await;
        self.dispatch.close(why);
        let Supervisor { home, ended, .. } = self;
        // Released first, because the next life of this identity may start as soon as the end is known.
        drop(home);
        ended.send_replace(true);
    }

    async fn keep(&mut self) -> Stopped {
        let mut left = self.dispatch.left.subscribe();
        let mut started = self.dispatch.started.subscribe();
        let mut is_started = false;
        let mut remember = interval(REMEMBER_EVERY);
        remember.set_missed_tick_behavior(MissedTickBehavior::Delay);
        remember.reset();
        loop {
            let wake = tokio::select! {
                () = self.dispatch.pending_commands.notified() => Wake::PendingCommands,
                _ = remember.tick() => Wake::Remember,
                started = started.wait_for(Option::is_some), if !is_started => {
                    is_started = true;
                    let failed = started.is_ok_and(|started| matches!(*started, Some(Err(_))));
                    if failed { Wake::Failed } else { Wake::Remember }
                }
                // An error means that no handle is left, which says the same.
                _ = self.leave.wait_for(|leave| *leave) => Wake::Leave,
                _ = left.wait_for(|left| *left) => Wake::Left,
                () = self.driver.stopped() => Wake::DriverEnded,
            };
            match wake {
                Wake::PendingCommands => self.send_pending_commands().await,
                Wake::Remember => self.remember().await,
                Wake::Leave => {
                    self.remember().await;
                    self.leave_in_order(&mut left).await;
                    return Stopped::Shutdown;
                }
                // There is nothing to leave.
                Wake::Failed => return Stopped::Shutdown,
                // Superseded: the dispatch knows by which incarnation.
                Wake::Left => return Stopped::Shutdown,
                Wake::DriverEnded => return Stopped::Crashed,
            }
        }
    }

    async fn send_pending_commands(&self) {
        let pending_commands = self.dispatch.take_pending_commands();
        for (subscription, items) in pending_commands.credit {
            // A driver that is gone is noticed by `stopped`.
            let _ = self.driver.send(Command::Credit { subscription, items }).await;
        }
        for subscription in pending_commands.unsubscribe {
            let _ = self.driver.send(Command::Unsubscribe(subscription)).await;
        }
    }

    async fn leave_in_order(&self, left: &mut watch::Receiver<bool>) {
        if self.driver.send(Command::Leave).await.is_err() {
            return;
        }
        if timeout(LEAVE_WITHIN, left.wait_for(|left| *left)).await.is_err() {
            tracing::warn!("leaving the ring took longer than {LEAVE_WITHIN:?}: the node goes without");
        }
    }

    async fn remember(&self) {
        if self.home.path().is_none() {
            return;
        }
        let Some(status) = self.status().await else { return };
        let dialable = status.peers.into_iter().filter(|peer| peer.addr != Addr::Unreachable);
        let seeds: Vec<Seed> = dialable.map(Seed::from).collect();
        let home = self.home.clone();
        // The disk is waited for elsewhere. A task that is gone has said why.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || home.remember(&seeds)).await {
            tracing::warn!(%error, "the peers could not be remembered");
        }
    }

    async fn status(&self) -> Option<Status> {
        let (answer, status) = oneshot::channel();
        let entered = self.dispatch.enter(OWN_TOKEN, Waiting::Status { answer, permit: None })?;
        self.driver.send(Command::Status(OWN_TOKEN)).await.ok()?;
        timeout(STATUS_WITHIN, status).await.ok()?.ok().inspect(|_| entered.keep())
    }
}
