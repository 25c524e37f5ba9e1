//! Clients that are none: random bytes, a huge length, nothing at all. They harm nobody.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::{PATIENCE, Process, ring, subscriber, treecast};

/// Resident memory of a process in KiB.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes that look random, and are the same each time.
fn noise(n: usize) -> Vec<u8> {
    let mut state = 1u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(n)
    .collect()
}

/// Whether the other side has hung up.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn random_bytes_a_huge_length_and_silence_harm_nobody() {
    let mut nodes = ring(3);
    let mut sub = subscriber("sub", "demo", &nodes[1].addr, &[]);
    let pid = nodes[0].process.pid();
    let before = memory(pid);
    let addr = nodes[0].addr.clone();
    let connect = || TcpStream::connect(&addr).unwrap();

    let silent: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    let mut speaking: Vec<TcpStream> = Vec::new();
    for bytes in [
        noise(100_000),
        vec![0xff; 4096],
        vec![0x16, 0x03, 0x01, 0xff, 0xff],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        for _ in 0..5 {
            let mut stream = connect();
            // The other side may hang up in the middle: that is what it should do.
            let _ = stream.write_all(&bytes);
            speaking.push(stream);
        }
    }
    nodes[0].process.wait_for_talk("a word about the garbage", |line| line.contains("127.0.0.1"));

    for i in 0..10 {
        let text = format!("undisturbed {i}");
        let args = ["pub", "demo", "-m", &text, "--json", "--ephemeral", "--join", &addr];
        assert!(Process::start("pub", treecast(&args)).wait().0.success());
        assert_eq!(sub.json("a message")["payload"], text);
    }
    let grown = memory(pid).saturating_sub(before);
    assert!(grown < 64 * 1024, "the node grew by {grown} KiB");
    for stream in &mut speaking {
        assert!(is_closed(stream), "garbage is hung up on");
    }
    for mut stream in silent {
        assert!(is_closed(&mut stream), "silence is hung up on");
    }
    assert!(nodes[0].process.runs());
    // And the ring is whole.
    assert_eq!(sub.rest(Duration::from_millis(1)).len(), 0);
}
