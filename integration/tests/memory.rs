//! Nodes' own count of their memory is what the allocator gets back when they are taken apart.

use std::alloc::System;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use treecast_integration::case;
use treecast_integration::cluster::Cluster;
use treecast_integration::world::{Config, Fidelity};
use treecast_scribe::PastryStack;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn nodes_count_their_memory_as_the_allocator_does() {
    let network = Config { fidelity: Fidelity::Values, spurious_timeouts: 0.0, ..Config::default() };
    let mut cluster = Cluster::new(case!("nodes_count_their_memory_as_the_allocator_does", 1), network);
    cluster.slice = Duration::from_secs(1);
    cluster.grow(100, Duration::from_secs(10));
    cluster.run(Duration::from_secs(60));
    let (mut counted, mut heap) = (0, 0);
    for slot in 0..50 {
        let stack = cluster.world.stop(slot);
        counted += stack.memory().total();
        let region = Region::new(ALLOCATOR);
        drop(stack);
        let change = region.change();
        heap += change.bytes_deallocated - change.bytes_allocated;
    }
    let (counted, real) = (counted / 50, heap / 50 + size_of::<PastryStack>());
    eprintln!("bytes per node: {counted} by its own count, {real} by the allocator");
    assert!(counted.abs_diff(real) * 20 <= real, "{counted} bytes counted, {real} are taken");
}
