//! A slow cable: a small proxy between two network devices of its own, which holds every frame for a while.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep_until};
use tokio_tun::Tun;

/// Frames on their way in one direction; further ones are lost, as on any cable.
const MAX_ON_THE_WAY: usize = 4096;
/// The longest frame: an Ethernet header and what a bridge passes on.
const MAX_FRAME: usize = 1600;

/// Carries frames while it lives.
pub(crate) struct Cable {
    _carriers: Runtime,
}

impl Cable {
    /// Makes two devices, up, and carries frames between them; each takes so long.
    pub(crate) fn lay(near: &str, far: &str, delay: Duration) -> Cable {
        let carriers = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        carriers.block_on(async {
            let (near, far) = (device(near), device(far));
            tokio::spawn(carry(near.clone(), far.clone(), delay));
            tokio::spawn(carry(far, near, delay));
        });
        Cable { _carriers: carriers }
    }
}

fn device(name: &str) -> Arc<Tun> {
    let made = Tun::builder().name(name).tap().up().build();
    let made = made.unwrap_or_else(|error| panic!("/dev/net/tun makes no device {name}: {error}"));
    Arc::new(made.into_iter().next().unwrap())
}

/// One direction.
async fn carry(from: Arc<Tun>, to: Arc<Tun>, delay: Duration) -> io::Result<()> {
    let mut on_the_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = [0; MAX_FRAME];
    loop {
        let next = on_the_way.front().map(|(arrives, _)| *arrives);
        tokio::select! {
            length = from.recv(&mut buffer) => if on_the_way.len() < MAX_ON_THE_WAY {
                on_the_way.push_back((Instant::now() + delay, buffer[..length?].to_vec()));
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                if let Some((_, frame)) = on_the_way.pop_front() {
                    to.send_all(&frame).await?;
                }
            }
        }
    }
}
