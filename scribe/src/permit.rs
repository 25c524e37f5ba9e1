//! Counts that keep themselves: a permit counts for as long as it lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the permits that it has handed out and that still live.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    // Atomic because a node may move to another thread; nothing is ordered by it.
    live: Arc<AtomicUsize>,
}

impl Meter {
    /// Permits that live.
    pub(crate) fn count(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Hands out a permit.
    pub(crate) fn take(&self) -> Permit {
        Permit::counted_by(&self.live)
    }
}

/// Counts as one, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    live: Arc<AtomicUsize>,
}

impl Permit {
    fn counted_by(live: &Arc<AtomicUsize>) -> Permit {
        live.fetch_add(1, Ordering::Relaxed);
        Permit { live: live.clone() }
    }
}

impl Clone for Permit {
    fn clone(&self) -> Permit {
        Permit::counted_by(&self.live)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_counts_while_it_lives() {
        let meter = Meter::default();
        let first = meter.take();
        let copies = vec![first.clone(), meter.take()];
        assert_eq!(meter.count(), 3);
        drop(copies);
        assert_eq!(meter.count(), 1);
        drop(first);
        assert_eq!(meter.count(), 0);
    }
}
