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

/// A line from the bottom to the top of an axis for shares.
pub(super) fn upright(at: f64) -> Vec<(f64, f64)> {
    vec![(at, 0.0), (at, 1.0)]
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
            Series::new("median RAD, plain Pastry's ideal tables (anchor)", Kind::Dashed, upright(1.62)),
            Series::new("median RMD, plain Pastry's ideal tables (anchor)", Kind::Dashed, upright(1.77)),
        ],
    }
}

/// (value, how many have at least so much), for each value above 0 that occurs.
fn at_least(values: impl Iterator<Item = f64>) -> Vec<(f64, f64)> {
    let mut values: Vec<f64> = values.filter(|&value| value > 0.0).collect();
    values.sort_unstable_by(|a, b| b.total_cmp(a));
    let last_of_each = |&(place, value): &(usize, &f64)| values.get(place + 1) != Some(value);
    let numbered = values.iter().enumerate().filter(last_of_each);
    let mut points: Vec<(f64, f64)> = numbered.map(|(place, &value)| (value, (place + 1) as f64)).collect();
    points.reverse();
    points
}

/// Nodes by their entries.
pub(super) fn entries_sheet(entries: &Samples) -> Sheet {
    let points = at_least(entries.iter().map(f64::from));
    Sheet {
        name: "entries",
        columns: vec!["entries", "nodes_with_at_least_so_many"],
        rows: points.into_iter().map(|(entries, nodes)| vec![entries, nodes]).collect(),
    }
}

/// How many children nodes have.
pub(super) fn entries(entries: &Samples) -> Plot {
    let points = at_least(entries.iter().map(f64::from));
    Plot {
        name: "entries",
        title: format!("Child entries per node, of {} nodes", entries.len()),
        x: Axis { logarithmic: true, ..Axis::of("child entries over all trees of a node") },
        y: Axis { logarithmic: true, ..Axis::of("nodes with at least so many") },
        series: vec![Series::new("Treecast", Kind::Line, points)],
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

fn stress_points(loads: &LinkLoads) -> Vec<(f64, f64)> {
    at_least(loads.crossings().iter().map(|&times| f64::from(times)))
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
