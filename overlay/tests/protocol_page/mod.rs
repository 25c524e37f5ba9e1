//! `docs/protocol.md` as the tests of both crates read it: its examples' nodes and keys, its tables.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "the test files of two crates use this; a test fails by panicking"
)]

use std::fmt::Debug;

use bytes::Bytes;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::peer::{Addr, Peer};

pub const DOC: &str = include_str!("../../../docs/protocol.md");

/// The nodes of the examples: two on the ring, one on its edge.
pub fn nodes() -> [(&'static str, Peer); 3] {
    let socket = |text: &str| Addr::from(text.parse::<std::net::SocketAddr>().expect("an example address"));
    let a = NodeId(0x3f00_0000_0000_0000_0000_0000_0000_0001);
    let b = NodeId(0xc5a2_90ab_0000_0000_0000_0000_0000_0080);
    [
        ("A", Peer { id: a, incarnation: 1, addr: socket("127.0.0.1:4848") }),
        ("B", Peer { id: b, incarnation: 1_764_547_200_000, addr: socket("[2001:db8::2]:4849") }),
        ("E", Peer { id: NodeId(5), incarnation: 300, addr: Addr::Unreachable }),
    ]
}

/// The keys of the examples.
pub const K: Key = Key(0x1234_5678_9abc_def0_0fed_cba9_8765_4321);
pub const M: Key = Key(u128::MAX);

/// An example's text: Rust's, with the example nodes and keys by their names.
pub fn text(value: &impl Debug, payload: &Bytes) -> String {
    let mut text = format!("{value:?}");
    for (name, peer) in nodes() {
        text = text
            .replace(&format!("{peer:?}"), name)
            .replace(&format!("{:?}", peer.id), &format!("{name}.id"));
    }
    text = text.replace(&format!("{K:?}"), "K").replace(&format!("{M:?}"), "M");
    if !payload.is_empty() {
        text += &format!(" + {}", format!("{payload:?}").trim_start_matches('b'));
    }
    text
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// A table of the page, from its mark to the next `<!-- end -->`: rows of cells, without their back quotes.
pub fn table(mark: &str) -> Vec<Vec<String>> {
    let (_, rest) = DOC.split_once(&format!("<!-- {mark} -->")).expect("a table begins with its mark");
    let (table, _) = rest.split_once("<!-- end -->").expect("a table has an end");
    let cells =
        |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    table.trim().lines().skip(2).map(cells).collect()
}

pub fn expect_table(mark: &str, expected: &[(String, Vec<u8>)]) {
    let rows: Vec<Vec<String>> =
        expected.iter().map(|(text, bytes)| vec![text.clone(), hex(bytes)]).collect();
    let correct: String = rows.iter().map(|row| format!("| `{}` | `{}` |\n", row[0], row[1])).collect();
    assert!(
        table(mark) == rows,
        "`{mark}` in docs/protocol.md differs from the code, which says:\n{correct}"
    );
}

/// Holds a table of limits to the code: each limit has a row with its value.
pub fn expect_limits(mark: &str, limits: &[(&str, u64)]) {
    let rows = table(mark);
    for (name, limit) in limits {
        let row = rows.iter().find(|row| row[2] == *name).expect(name);
        assert_eq!(row[1], limit.to_string(), "{name}");
    }
}
