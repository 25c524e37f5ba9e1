//! Promises of the models, whatever their dice say.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn map(topology: &Topology, seed: u8, slots: usize) -> Map {
    let mut map = Map::new(topology, &[seed; 32]);
    (0..slots).for_each(|_| map.add());
    map
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn topologies_are_named() {
    let names = [
        "plane",
        "sphere",
        "transit-stub",
        "constant:100",
        "constant:0.5",
        "plane:1,50",
        "sphere:0,7.25",
        "pairs:10,50",
    ];
    for name in names {
        assert_eq!(name.parse::<Topology>().unwrap().to_string(), name);
    }
    assert_eq!("constant:1.5".parse(), Ok(Topology::Constant(Duration::from_micros(1500))));
    for (text, error) in [
        (
            "ring",
            "`ring` is no topology: plane, sphere, transit-stub, pairs:LEAST,MOST, matrix:FILE or constant:MS is expected",
        ),
        (
            "ring:7",
            "`ring:7` is no topology: plane, sphere, transit-stub, pairs:LEAST,MOST, matrix:FILE or constant:MS is expected",
        ),
        (
            "constant",
            "`constant` is no topology: plane, sphere, transit-stub, pairs:LEAST,MOST, matrix:FILE or constant:MS is expected",
        ),
        ("constant:fast", "topology `constant:fast`: `fast` is no time in milliseconds"),
        ("constant:-1", "topology `constant:-1`: `-1` is no time in milliseconds"),
        ("plane:5", "topology `plane:5`: `` is no time in milliseconds"),
        ("matrix:/nowhere", "topology matrix:/nowhere: No such file or directory (os error 2)"),
    ] {
        assert_eq!(text.parse::<Topology>().unwrap_err().to_string(), error);
    }
}

#[test]
fn latencies_follow_from_the_seed_and_are_the_same_both_ways() {
    for topology in [Topology::PLANE, Topology::SPHERE, Topology::transit_stub(), Topology::Constant(ms(7))] {
        let (one, same, other) = (map(&topology, 1, 100), map(&topology, 1, 100), map(&topology, 2, 100));
        let mut differ = false;
        for (a, b) in (0..100).flat_map(|a| (0..100).map(move |b| (a, b))) {
            assert_eq!(one.latency(a, b), same.latency(a, b));
            assert_eq!(one.latency(a, b), one.latency(b, a));
            differ |= one.latency(a, b) != other.latency(a, b);
        }
        assert_eq!(differ, topology != Topology::Constant(ms(7)), "{topology}");
        one.latency(0, 100_000);
    }
}

/// Half a great circle and no more; on average a quarter.
#[test]
fn the_sphere_is_evenly_full() {
    let map = map(&Topology::SPHERE, 3, 2000);
    let ways: Vec<f64> = (1..2000).map(|slot| map.latency(0, slot).as_secs_f64() * 1000.0).collect();
    assert!(ways.iter().all(|way| (0.0..=100.01).contains(way)));
    let mean = ways.iter().sum::<f64>() / ways.len() as f64;
    assert!((48.0..52.0).contains(&mean), "{mean} ms");
}

#[test]
fn a_matrix_places_slots_at_its_points() {
    let path = std::env::temp_dir().join(format!("treecast-matrix-{}", std::process::id()));
    std::fs::write(&path, "1 10 20\n10 1 30\n25 35 1\n").unwrap();
    let topology: Topology = format!("matrix:{}", path.display()).parse().unwrap();
    std::fs::remove_file(&path).unwrap();
    let map = map(&topology, 1, 50);
    let points: BTreeSet<u32> = (0..50).filter_map(|slot| map.router(slot)).collect();
    assert_eq!(points, BTreeSet::from([0, 1, 2]));
    let Topology::Matrix(matrix) = topology else { panic!("a matrix was asked for") };
    for (a, b) in (0..50).flat_map(|a| (0..50).map(move |b| (a, b))) {
        let at = |slot| map.router(slot).unwrap() as usize;
        assert_eq!(map.latency(a, b), matrix.latency(at(a), at(b)));
    }
}

#[test]
fn the_transit_stub_network_has_the_papers_shape() {
    let shape = TransitStub::default();
    assert_eq!(shape.routers(), 5050);
    let map = map(&Topology::TransitStub(shape), 1, 20_000);
    let mut nodes = BTreeMap::new();
    for slot in 0..20_000 {
        *nodes.entry(map.router(slot).unwrap()).or_insert(0) += 1;
    }
    assert!(nodes.keys().all(|&router| (50..5050).contains(&router)), "nodes hang on stub routers only");
    assert!(nodes.len() > 4850, "on all of them: {}", nodes.len());
}

/// The delay of a route is that of its links: what is counted on links is what latencies are made of.
#[test]
fn a_latency_is_the_sum_of_its_links() {
    let map = map(&Topology::transit_stub(), 5, 300);
    let routers = map.routers().unwrap();
    let links = |a, b| {
        let mut links = Vec::new();
        routers.route(a, b, |link| links.push(link));
        links
    };
    // A link's delay, learned from routes that differ by one link, must fit every other route.
    let mut classes = [0; 4];
    for (a, b) in (0..300).flat_map(|a| (0..a).map(move |b| (a, b))) {
        let (there, back) = (links(a, b), links(b, a));
        assert_eq!(there.iter().collect::<BTreeSet<_>>().len(), there.len(), "no link twice");
        assert_eq!(there.iter().collect::<BTreeSet<_>>(), back.iter().collect::<BTreeSet<_>>());
        let same_router = map.router(a) == map.router(b);
        assert_eq!(there.len() == 2, same_router);
        assert_eq!(map.latency(a, b) == ms(2), same_router);
        for &link in &there {
            classes[routers.class(link)] += 1;
        }
        let sum: u64 = there.iter().map(|&link| routers.link_nanos(link)).sum();
        assert_eq!(sum, map.nanos(a, b));
    }
    assert!(classes.iter().all(|&crossed| crossed > 100), "{classes:?}");
}

#[test]
fn a_multicast_crosses_each_link_once() {
    let map = map(&Topology::transit_stub(), 5, 2000);
    let members: Vec<usize> = (10..1500).collect();
    let tree = map.multicast_links(3, &members).unwrap();
    let once: BTreeSet<u32> = tree.iter().copied().collect();
    assert_eq!(once.len(), tree.len());
    let mut union = BTreeSet::new();
    let mut unicast = LinkLoads::default();
    for &member in &members {
        map.routers().unwrap().route(3, member, |link| {
            union.insert(link);
            unicast.add(&[link]);
        });
    }
    assert_eq!(once, union);
    assert_eq!(unicast.max, 1490, "the source's access link carries every copy");
    assert_eq!(unicast.used as usize, union.len());
    let mut loads = LinkLoads::default();
    loads.add(&tree);
    assert_eq!((loads.total, loads.max, loads.used), (tree.len() as u64, 1, tree.len() as u64));
    assert!(unicast.total > 3 * loads.total, "{} and {}", unicast.total, loads.total);
    assert_eq!(map.multicast_links(3, &[3]), Some(vec![]), "nothing to send");
    assert_eq!(self::map(&Topology::PLANE, 1, 10).multicast_links(0, &[1]), None);
}
