//! The ports by which nodes of one machine find each other.
//!
//! Departure from design §7, where every node takes the first free port: edges that may become ring nodes listen in the upper
//! half of the range, and other edges outside of it. A newcomer finds every node that stays, because an edge that is asked
//! names its access nodes. A machine full of subscribers keeps the lower half for ring nodes.

use std::ops::RangeInclusive;

/// Where nodes listen, and newcomers ask, unless told otherwise.
pub const DEFAULT_PORTS: RangeInclusive<u16> = 4848..=4863;
/// The environment variable that says otherwise.
const VARIABLE: &str = "TREECAST_PORTS";

/// `TREECAST_PORTS` is no range of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE} is `{0}`: a range of ports such as `4848-4863` is expected, at most 256 of them")]
pub struct PortsError(String);

/// The range of ports that `TREECAST_PORTS=A-B` says, or [`DEFAULT_PORTS`].
pub fn local_ports() -> Result<RangeInclusive<u16>, PortsError> {
    match std::env::var_os(VARIABLE) {
        Some(text) => parse(&text.to_string_lossy()),
        None => Ok(DEFAULT_PORTS),
    }
}

fn parse(text: &str) -> Result<RangeInclusive<u16>, PortsError> {
    let range = || {
        let (first, last) = text.split_once('-')?;
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first > 0 && first <= last && last - first < 256).then_some(first..=last)
    };
    range().ok_or_else(|| PortsError(text.chars().take(64).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_parse_and_what_is_none_is_named() {
        assert_eq!(parse("5000-5015"), Ok(5000..=5015));
        assert_eq!(parse("7-7"), Ok(7..=7));
        for text in ["", "5000", "0-3", "9-3", "1-65535", "a-b", "1-99999"] {
            assert_eq!(parse(text), Err(PortsError(text.into())), "{text}");
        }
    }
}
