//! How long a receipt takes.

use std::time::Duration;

/// Smoothed round-trip time and its variation (RFC 6298 §2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
}

impl RoundTrip {
    /// Takes a sample into account, be it the first one.
    pub(crate) fn after(before: Option<RoundTrip>, sample: Duration) -> RoundTrip {
        match before {
            None => RoundTrip { smoothed: sample, variation: sample / 2 },
            Some(rtt) => RoundTrip {
                variation: (rtt.variation * 3 + rtt.smoothed.abs_diff(sample)) / 4,
                smoothed: (rtt.smoothed * 7 + sample) / 8,
            },
        }
    }

    /// How long a receipt takes at most, so far as can be told.
    pub(crate) fn limit(self) -> Duration {
        self.smoothed + self.variation * 4
    }
}
