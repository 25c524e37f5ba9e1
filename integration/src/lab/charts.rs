//! Pictures and tables that experiments share.

use super::stats::{Histogram, Samples};
use crate::report::{Axis, Kind, Plot, Series, Sheet};
use crate::world::LinkLoads;

/// A distribution as (value, share of the samples up to it).
pub(super) fn cumulative_sheet(name: &'static str, samples: &Samples) -> Sheet {
    let rows = samples.cumulative().into_iter().map(|(value, share)| vec![value, share]).collect();
    Sheet { name, columns: vec!["value", "share"], rows }
}

/// An axis for shares.
pub(super) fn shares(label: &str) -> Axis {
    Axis { range: Some((0.0, 1.0)), ..Axis::of(label) }
}

/// RAD and RMD of all groups.
pub(super) fn delay_ratios(rad: &Samples, rmd: &Samples) -> Plot {
    let highest = [rad, rmd].map(|ratios| ratios.quantile(0.99).unwrap_or(1.0));
    let highest = highest.into_iter().fold(2.0, f64::max);
    Plot {
        name: "delay_ratios",
        title: "Delay by the tree against unicast".to_string(),
        x: Axis {
            range: Some((0.9, highest)),
            ..Axis::of("delay by the tree ÷ latency of unicast, per group")
        },
        y: shares("share of groups up to it"),
        series: vec![
            Series::new("mean delay (RAD)", Kind::Line, rad.cumulative()),
            Series::new("largest delay (RMD)", Kind::Line, rmd.cumulative()),
        ],
    }
}

/// How many children nodes have.
pub(super) fn entries(entries: &Samples) -> Plot {
    let nodes_with_more = |(value, share): (f64, f64)| (value.max(0.5), (1.0 - share) * entries.len() as f64);
    let points = entries.cumulative().into_iter().map(nodes_with_more).filter(|&(_, nodes)| nodes >= 0.5);
    Plot {
        name: "entries",
        title: "Child entries per node".to_string(),
        x: Axis { logarithmic: true, ..Axis::of("child entries over all trees of a node") },
        y: Axis { logarithmic: true, ..Axis::of("nodes with more") },
        series: vec![Series::new("Treecast", Kind::Line, points.collect())],
    }
}

/// How deep members are.
pub(super) fn depths(depths: &Samples) -> Plot {
    let mut histogram = Histogram::default();
    depths.iter().for_each(|depth| histogram.add(depth as usize));
    let shares = histogram.shares().into_iter().enumerate();
    Plot {
        name: "depth",
        title: "Depth of members in their trees".to_string(),
        x: Axis::of("hops from the root"),
        y: Axis::of("share of memberships"),
        series: vec![Series::new(
            "Treecast",
            Kind::Bars,
            shares.map(|(hops, share)| (hops as f64, share)).collect(),
        )],
    }
}

/// (crossings, links with at least so many), for each number of crossings that occurs.
fn stress_points(loads: &LinkLoads) -> Vec<(f64, f64)> {
    let mut crossings: Vec<u32> = loads.crossings().iter().copied().filter(|&times| times > 0).collect();
    crossings.sort_unstable_by(|a, b| b.cmp(a));
    let last_of_each = |&(place, times): &(usize, &u32)| crossings.get(place + 1) != Some(times);
    let mut points: Vec<(f64, f64)> = crossings
        .iter()
        .enumerate()
        .filter(last_of_each)
        .map(|(place, &times)| (f64::from(times), (place + 1) as f64))
        .collect();
    points.reverse();
    points
}

/// Links by their load.
pub(super) fn stress_sheet(name: &'static str, loads: &LinkLoads) -> Sheet {
    let rows = stress_points(loads).into_iter().map(|(times, links)| vec![times, links]).collect();
    Sheet { name, columns: vec!["messages", "links_with_at_least_so_many"], rows }
}

/// Links by their load, beside IP multicast.
pub(super) fn stress(ours: &LinkLoads, ip: &LinkLoads) -> Plot {
    Plot {
        name: "link_stress",
        title: "Load of physical links".to_string(),
        x: Axis { logarithmic: true, ..Axis::of("messages over a link, one message per group") },
        y: Axis { logarithmic: true, ..Axis::of("links with at least so many") },
        series: vec![
            Series::new("Treecast", Kind::Line, stress_points(ours)),
            Series::new("IP multicast", Kind::Line, stress_points(ip)),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stress_is_counted_from_the_worst_link_down() {
        let mut loads = LinkLoads::default();
        loads.add(&[1, 2, 3, 3, 7, 7]);
        assert_eq!(stress_points(&loads), [(1.0, 4.0), (2.0, 2.0)]);
    }
}
