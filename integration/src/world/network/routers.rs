//! Routers, their links and the routes between them: the transit-stub model, computed once so that a latency is three
//! look-ups.

use std::time::Duration;

use rand::RngExt;
use treecast_overlay::random::Rng;

use super::{TransitStub, nanos};

/// Share of pairs that are linked: among a stub domain's routers, among a transit domain's, among transit domains. The
/// figures of the Georgia Tech generator's own examples.
const STUB_PAIRS: f64 = 0.42;
const TRANSIT_PAIRS: f64 = 0.6;

/// All shortest routes among a few routers: delays in nanoseconds and next hops, both by (from, to).
#[derive(Debug, Default)]
struct Routes {
    delays: Vec<u32>,
    next: Vec<u8>,
}

/// As much of a stub router as a latency needs.
#[derive(Clone, Copy, Debug)]
struct Stub {
    /// Its way to its transit router.
    up: u32,
    domain: u16,
    transit: u16,
}

#[derive(Debug)]
pub(super) struct Routers {
    stub_routers: usize,
    transits: usize,
    access: u32,
    stubs: Vec<Stub>,
    /// Within stub domains, one after another.
    within: Routes,
    core: Routes,
    /// The router of each stub domain that has the uplink.
    gateways: Vec<u8>,
    /// Stub router of each slot.
    slots: Vec<u32>,
}

impl Routers {
    pub(super) fn new(shape: &TransitStub, mut dice: Rng) -> Routers {
        let (transits, inside) = (shape.transits(), shape.stub_routers as usize);
        assert!(
            (1..=256).contains(&transits) && (1..=256).contains(&inside) && shape.stubs() <= 1 << 16,
            "a transit-stub network has 1 to 256 transit routers, 1 to 256 routers in a stub domain and up to 65,536 \
             stub domains: {shape:?}"
        );
        let core = core(shape, &mut dice);
        let mut routers = Routers {
            stub_routers: inside,
            transits,
            access: narrow(nanos(shape.access)),
            stubs: Vec::with_capacity(shape.stubs() * inside),
            within: Routes::default(),
            core,
            gateways: Vec::with_capacity(shape.stubs()),
            slots: Vec::new(),
        };
        for domain in 0..shape.stubs() {
            let mut links = RouteSearch::new(inside);
            for (a, b) in connected(inside, STUB_PAIRS, &mut dice) {
                links.add(a, b, delay(shape.within_stub, &mut dice));
            }
            let routes = links.routes();
            let gateway = dice.random_range(0..inside);
            let uplink = delay(shape.uplink, &mut dice);
            let transit = (domain / shape.stub_domains as usize) as u16;
            routers.stubs.extend((0..inside).map(|router| {
                let up = routes.delays[router * inside + gateway] + uplink;
                Stub { up, domain: domain as u16, transit }
            }));
            routers.gateways.push(gateway as u8);
            routers.within.delays.extend(routes.delays);
            routers.within.next.extend(routes.next);
        }
        routers
    }

    pub(super) fn add(&mut self, dice: &mut Rng) {
        self.slots.push(dice.random_range(0..self.stubs.len() as u32));
    }

    pub(super) fn router(&self, slot: usize) -> Option<u32> {
        self.slots.get(slot).map(|stub| stub + self.transits as u32)
    }

    pub(super) fn nanos(&self, a: usize, b: usize) -> u64 {
        let (a, b) = (self.at(a), self.at(b));
        let access = 2 * u64::from(self.access);
        if a == b {
            return access;
        }
        let (here, there) = (self.stubs[a], self.stubs[b]);
        let way = if here.domain == there.domain {
            u64::from(self.within.delays[a * self.stub_routers + b % self.stub_routers])
        } else {
            let across =
                self.core.delays[usize::from(here.transit) * self.transits + usize::from(there.transit)];
            u64::from(here.up) + u64::from(across) + u64::from(there.up)
        };
        access + way
    }

    /// A slot that nobody ever lived in hangs on the first router.
    fn at(&self, slot: usize) -> usize {
        self.slots.get(slot).copied().unwrap_or_default() as usize
    }

    pub(super) fn bytes(&self) -> usize {
        self.stubs.capacity() * size_of::<Stub>()
            + (self.within.delays.len() + self.core.delays.len()) * size_of::<u32>()
            + self.within.next.len()
            + self.core.next.len()
            + self.gateways.len()
            + self.slots.capacity() * size_of::<u32>()
    }

    // Physical links. Each has a number: the core's first, then uplinks, then those within stub domains, then the
    // slots' access links. Both directions of a link are one.

    /// Every link of the route between two slots, access links included.
    pub(super) fn route(&self, from: usize, to: usize, mut cross: impl FnMut(u32)) {
        cross(self.access_link(from));
        let (a, b) = (self.at(from), self.at(to));
        let (here, there) = (self.stubs[a], self.stubs[b]);
        let inside = self.stub_routers;
        if here.domain == there.domain {
            self.route_within(here.domain, a % inside, b % inside, &mut cross);
        } else {
            let gateway = |domain: u16| usize::from(self.gateways[usize::from(domain)]);
            self.route_within(here.domain, a % inside, gateway(here.domain), &mut cross);
            cross(self.uplink(here.domain));
            let mut at = usize::from(here.transit);
            while at != usize::from(there.transit) {
                let next = usize::from(self.core.next[at * self.transits + usize::from(there.transit)]);
                cross(self.core_link(at, next));
                at = next;
            }
            cross(self.uplink(there.domain));
            self.route_within(there.domain, gateway(there.domain), b % inside, &mut cross);
        }
        cross(self.access_link(to));
    }

    fn route_within(&self, domain: u16, from: usize, to: usize, cross: &mut impl FnMut(u32)) {
        let (inside, domain) = (self.stub_routers, usize::from(domain));
        let mut at = from;
        while at != to {
            let next = usize::from(self.within.next[(domain * inside + at) * inside + to]);
            let (low, high) = (at.min(next), at.max(next));
            let first = self.transits * self.transits + self.gateways.len();
            cross((first + (domain * inside + low) * inside + high) as u32);
            at = next;
        }
    }

    fn core_link(&self, a: usize, b: usize) -> u32 {
        (a.min(b) * self.transits + a.max(b)) as u32
    }

    fn uplink(&self, domain: u16) -> u32 {
        (self.transits * self.transits + usize::from(domain)) as u32
    }

    fn access_link(&self, slot: usize) -> u32 {
        let routed = self.transits * self.transits + self.gateways.len() + self.within.delays.len();
        (routed + slot) as u32
    }

    pub(super) fn multicast_links(&self, source: usize, members: &[usize]) -> Vec<u32> {
        let slots = members.iter().copied().max().unwrap_or_default().max(source);
        let mut taken = vec![false; self.access_link(slots) as usize + 1];
        let mut links = Vec::new();
        for &member in members.iter().filter(|&&member| member != source) {
            self.route(source, member, |link| {
                if !std::mem::replace(&mut taken[link as usize], true) {
                    links.push(link);
                }
            });
        }
        links
    }
}

#[cfg(test)]
impl Routers {
    /// 0 core, 1 uplink, 2 within a stub domain, 3 access.
    pub(super) fn class(&self, link: u32) -> usize {
        let uplinks = (self.transits * self.transits) as u32;
        let firsts = [uplinks, uplinks + self.gateways.len() as u32, self.access_link(0)];
        firsts.iter().filter(|&&first| link >= first).count()
    }

    /// A link that is on some route is the shortest way between its ends.
    pub(super) fn link_nanos(&self, link: u32) -> u64 {
        let uplinks = self.transits * self.transits;
        let within = uplinks + self.gateways.len();
        let nanos = match (self.class(link), link as usize) {
            (0, link) => self.core.delays[link],
            (1, link) => {
                let domain = link - uplinks;
                self.stubs[domain * self.stub_routers + usize::from(self.gateways[domain])].up
            }
            (2, link) => self.within.delays[link - within],
            _ => self.access,
        };
        u64::from(nanos)
    }
}

/// The transit routers: random connected graphs within domains, and one of domains.
fn core(shape: &TransitStub, dice: &mut Rng) -> Routes {
    let inside = shape.transit_routers as usize;
    let mut links = RouteSearch::new(shape.transits());
    for domain in 0..shape.transit_domains as usize {
        for (a, b) in connected(inside, TRANSIT_PAIRS, dice) {
            links.add(domain * inside + a, domain * inside + b, delay(shape.within_domain, dice));
        }
    }
    for (a, b) in connected(shape.transit_domains as usize, TRANSIT_PAIRS, dice) {
        let mut end = |domain: usize| domain * inside + dice.random_range(0..inside);
        let (a, b) = (end(a), end(b));
        links.add(a, b, delay(shape.between_domains, dice));
    }
    links.routes()
}

/// The pairs of a connected random graph: each pair with the same chance, thrown again until all hang together.
fn connected(routers: usize, chance: f64, dice: &mut Rng) -> Vec<(usize, usize)> {
    loop {
        let pairs = (0..routers).flat_map(|a| (a + 1..routers).map(move |b| (a, b)));
        let linked: Vec<_> = pairs.filter(|_| dice.random::<f64>() < chance).collect();
        let mut part: Vec<usize> = (0..routers).collect();
        for &(a, b) in &linked {
            let (from, to) = (part[a], part[b]);
            part.iter_mut().filter(|part| **part == from).for_each(|part| *part = to);
        }
        if part.iter().all(|&other| other == part[0]) {
            return linked;
        }
    }
}

fn delay(mean: Duration, dice: &mut Rng) -> u32 {
    narrow((nanos(mean) as f64 * (0.5 + dice.random::<f64>())) as u64)
}

fn narrow(nanos: u64) -> u32 {
    u32::try_from(nanos).unwrap_or_else(|_| panic!("{nanos} ns: a link's delay is below 4 s"))
}

/// Links on their way to routes.
struct RouteSearch {
    routers: usize,
    delays: Vec<u64>,
    next: Vec<u8>,
}

/// No link: more than any route, and twice that does not overflow.
const FAR: u64 = u64::MAX / 4;

impl RouteSearch {
    fn new(routers: usize) -> RouteSearch {
        let mut delays = vec![FAR; routers * routers];
        (0..routers).for_each(|router| delays[router * routers + router] = 0);
        let next = (0..routers * routers).map(|pair| (pair % routers) as u8).collect();
        RouteSearch { routers, delays, next }
    }

    fn add(&mut self, a: usize, b: usize, delay: u32) {
        for (from, to) in [(a, b), (b, a)] {
            let place = from * self.routers + to;
            self.delays[place] = self.delays[place].min(u64::from(delay));
        }
    }

    /// Floyd and Warshall's shortest ways.
    fn routes(mut self) -> Routes {
        let n = self.routers;
        for by in 0..n {
            for from in 0..n {
                for to in 0..n {
                    let around = self.delays[from * n + by] + self.delays[by * n + to];
                    if around < self.delays[from * n + to] {
                        self.delays[from * n + to] = around;
                        self.next[from * n + to] = self.next[from * n + by];
                    }
                }
            }
        }
        Routes { delays: self.delays.into_iter().map(narrow).collect(), next: self.next }
    }
}
