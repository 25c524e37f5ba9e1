//! The shape of an internet of transit and stub domains, and the delays of its links.

use std::time::Duration;

/// An internet as the Georgia Tech generator's transit-stub model describes it, in the Scribe paper's size: 10 transit
/// domains of 5 routers, and on each of these 10 stub domains of 10 routers; 5,050 routers. Every node hangs on a stub
/// router that is drawn at random. Each link's delay is drawn evenly between half and one and a half of its class's
/// mean. `docs/simulation.md` says where the figures come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransitStub {
    /// Transit domains.
    pub transit_domains: u32,
    /// Routers of a transit domain.
    pub transit_routers: u32,
    /// Stub domains on each transit router.
    pub stub_domains: u32,
    /// Routers of a stub domain, at most 256.
    pub stub_routers: u32,
    /// A link between two transit domains, mean.
    pub between_domains: Duration,
    /// A link within a transit domain, mean.
    pub within_domain: Duration,
    /// A stub domain's link to its transit router, mean.
    pub uplink: Duration,
    /// A link within a stub domain, mean.
    pub within_stub: Duration,
    /// A node's own link to its router: the same for all.
    pub access: Duration,
}

impl Default for TransitStub {
    fn default() -> TransitStub {
        TransitStub {
            transit_domains: 10,
            transit_routers: 5,
            stub_domains: 10,
            stub_routers: 10,
            between_domains: Duration::from_millis(100),
            within_domain: Duration::from_millis(20),
            uplink: Duration::from_millis(10),
            within_stub: Duration::from_millis(3),
            access: Duration::from_millis(1),
        }
    }
}

impl TransitStub {
    /// Transit routers together.
    pub(super) fn transits(&self) -> usize {
        (self.transit_domains * self.transit_routers) as usize
    }

    /// Stub domains together.
    pub(super) fn stubs(&self) -> usize {
        self.transits() * self.stub_domains as usize
    }

    /// All routers.
    pub fn routers(&self) -> usize {
        self.transits() + self.stubs() * self.stub_routers as usize
    }
}
