//! The driver's clock: it runs on while the machine sleeps.

use std::time::Duration;

use crate::time::Instant;

/// CLOCK_BOOTTIME since this clock was made. A woken laptop must see that its leases are dead, and tokio's (and
/// std's) clock stands still during suspend.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Duration,
}

impl Clock {
    /// A clock that starts now, at [`Instant::ZERO`].
    pub fn start() -> Clock {
        Clock { start: since_boot() }
    }

    /// Now.
    pub fn now(&self) -> Instant {
        Instant::ZERO + since_boot().saturating_sub(self.start)
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::start()
    }
}

#[cfg(target_os = "linux")]
const BOOT: rustix::time::ClockId = rustix::time::ClockId::Boottime;
/// Elsewhere the monotonic clock has to do; on Apple's systems it runs on during sleep.
#[cfg(not(target_os = "linux"))]
const BOOT: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(BOOT);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_runs_backwards() {
        let clock = Clock::start();
        let (a, b) = (clock.now(), clock.now());
        assert!(a <= b && b.since(Instant::ZERO) < Duration::from_secs(60));
    }
}
