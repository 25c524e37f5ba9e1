//! The library face on real sockets: nodes of one process on 127.0.0.1.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tokio::time::timeout;
use treecast_scribe::overlay::config::Role;
use treecast_scribe::overlay::id::Key;
use treecast_scribe::overlay::kbr;
use treecast_scribe::{
    BroadcastError, Builder, Config, Error, Item, Message, PublishError, Scribe, StartError, Stopped,
    Subscription,
};

/// How long anything may take before a test fails. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Any free port, and a network that no other test or process is in: nobody on the well-known ports answers.
fn builder(network: &str) -> Builder {
    Scribe::builder().network(network).listen(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn network() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Nodes of a ring of their own, all joined through the first.
async fn ring(n: usize) -> Vec<Scribe> {
    let network = network();
    let mut nodes = vec![builder(&network).start().await.unwrap()];
    while nodes.len() < n {
        let ticket = nodes[0].ticket();
        nodes.push(builder(&network).join(ticket).start().await.unwrap());
    }
    nodes
}

async fn message(subscription: &mut Subscription) -> Message {
    loop {
        let item = timeout(PATIENCE, subscription.next()).await.expect("a message in time");
        match item.expect("the node lives") {
            Item::Message(message) => return message,
            Item::Gap(gap) => panic!("nothing was lost, yet: {gap:?}"),
            Item::ParentChanged(_) => {}
        }
    }
}

#[tokio::test]
async fn what_one_node_publishes_another_receives() {
    let nodes = ring(2).await;
    let mut news = nodes[1].subscribe("rust/news").await.unwrap();
    let receipt = nodes[0].publish("rust/news", "it compiles").await.unwrap();
    let message = message(&mut news).await;
    assert_eq!(message.payload, "it compiles");
    assert_eq!((message.id, message.position), (receipt.id, receipt.position));
    assert_eq!((receipt.id.publisher, receipt.listeners), (nodes[0].id(), 1));
    assert_eq!(news.mark(), message.mark);
}

#[tokio::test]
async fn many_messages_in_flight_keep_their_order_and_never_meet_a_busy_node() {
    let nodes = ring(2).await;
    let mut subscription = nodes[1].subscribe("flood").await.unwrap();
    let publisher = nodes[0].publisher("flood").unwrap();
    let sending = async {
        let mut receipts = Vec::new();
        for n in 0..5000_u32 {
            receipts.push(publisher.send(n.to_be_bytes().to_vec()).await.unwrap());
        }
        let mut offsets = BTreeSet::new();
        for receipt in receipts {
            offsets.insert(receipt.await.unwrap().position.offset);
        }
        assert_eq!(offsets.len(), 5000);
    };
    let receiving = async {
        for n in 0..5000_u32 {
            assert_eq!(message(&mut subscription).await.payload, n.to_be_bytes().to_vec());
        }
    };
    timeout(PATIENCE, async { tokio::join!(sending, receiving) }).await.unwrap();
}

#[tokio::test]
async fn a_subscription_is_a_stream_and_ends_with_its_node() {
    let nodes = ring(1).await;
    let subscription = nodes[0].subscribe("a").await.unwrap();
    nodes[0].publish("a", "1").await.unwrap();
    nodes[0].publish("a", "2").await.unwrap();
    nodes[0].clone().shutdown().await;
    let items: Vec<Item> = timeout(PATIENCE, subscription.collect()).await.unwrap();
    let messages = items.iter().filter(|item| matches!(item, Item::Message(_))).count();
    assert_eq!(messages, 2, "what was delivered is still read: {items:?}");
}

#[tokio::test]
async fn a_dropped_subscription_leaves_the_topic() {
    let nodes = ring(1).await;
    let (first, second) = (nodes[0].subscribe("a").await.unwrap(), nodes[0].subscribe("a").await.unwrap());
    assert_eq!(nodes[0].publish("a", "x").await.unwrap().listeners, 2);
    drop(first);
    let gone = async { while nodes[0].publish("a", "x").await.unwrap().listeners != 1 {} };
    timeout(PATIENCE, gone).await.unwrap();
    drop(second);
}

#[tokio::test]
async fn a_subscribe_that_is_given_up_leaves_nothing_behind() {
    let nodes = ring(1).await;
    for _ in 0..10 {
        // Polled once: the command is on its way, the answer is not awaited.
        let subscribe = nodes[0].subscribe("a");
        let _ = timeout(Duration::ZERO, subscribe).await;
    }
    let gone = async { while nodes[0].publish("a", "x").await.unwrap().listeners != 0 {} };
    timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn edges_publish_and_subscribe_without_being_on_the_ring() {
    let nodes = ring(2).await;
    let contact = nodes[0].contact();
    assert!(!contact.is_edge());
    let network = network();
    let first = builder(&network).start().await.unwrap();
    let edge = Role::Edge { promote_after: None };
    let reader = builder(&network).join(first.ticket()).role(edge).start().await.unwrap();
    let writer = builder(&network).join(first.ticket()).role(edge).start().await.unwrap();
    assert!(reader.contact().is_edge() && writer.contact().is_edge());
    let mut subscription = reader.subscribe("a").await.unwrap();
    let receipt = writer.publish("a", "from edge to edge").await.unwrap();
    assert_eq!(receipt.listeners, 1);
    assert_eq!(message(&mut subscription).await.payload, "from edge to edge");
    assert_eq!(first.lookup(reader.id().key()).await.unwrap().root.id, first.id(), "no key is an edge's");
}

#[tokio::test]
async fn errors_name_the_culprit() {
    let nodes = ring(1).await;
    let error = nodes[0].publish("a//b", "x").await.unwrap_err();
    assert!(matches!(error, Error::Topic(_)), "{error:?}");
    assert!(nodes[0].subscribe("").await.unwrap_err().to_string().contains("empty"));
    let large = vec![0; 1 << 20];
    let error = nodes[0].publish("a", large).await.unwrap_err();
    assert!(matches!(error, Error::Publish(PublishError::TooLarge { .. })), "{error:?}");
}

#[tokio::test]
async fn a_trace_shows_both_ends() {
    let nodes = ring(3).await;
    let target = nodes[2].id();
    let found = nodes[0].trace(target.key()).await.unwrap();
    let path = found.path.expect("it was asked for");
    assert_eq!((path.first().unwrap().node, path.last().unwrap().node), (nodes[0].id(), target));
    assert_eq!(nodes[1].lookup(target.key()).await.unwrap().root.id, target);
    assert_eq!(nodes[0].trace_topic("a").await.unwrap().root.id, {
        let key = treecast_scribe::Topic::new("a").unwrap().id().key();
        nodes[1].lookup(key).await.unwrap().root.id
    });
}

#[tokio::test]
async fn a_status_names_the_neighbours() {
    let nodes = ring(2).await;
    let knows = async {
        loop {
            let status = nodes[0].status().await.unwrap();
            if status.peers.iter().any(|peer| peer.id == nodes[1].id()) {
                return status;
            }
        }
    };
    let status = timeout(PATIENCE, knows).await.unwrap();
    assert_eq!(status.contact, nodes[0].contact());
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_lets_its_identity_go() {
    let home = tempfile::tempdir().unwrap();
    let network = network();
    // Bound, then free again: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failing = || builder(&network).data_dir(home.path()).join(port).start();
    let error = failing().await.unwrap_err();
    assert!(matches!(error, StartError::Ring(kbr::StartError::Unreachable(_))), "{error:?}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    failing().await.unwrap_err();
    assert!(!home.path().join("node-2").exists(), "the second start found the first identity free");

    let error = Scribe::builder().join("nowhere").start().await.unwrap_err();
    assert!(error.to_string().contains("`nowhere`"), "{error}");
    let error = Scribe::builder().join("192.0.2.1:4848").start().await.unwrap_err();
    assert!(matches!(error, StartError::ListensLocally { .. }), "{error:?}");
}

#[tokio::test]
async fn an_identity_is_free_again_after_a_shutdown_and_remembers_its_peers() {
    let home = tempfile::tempdir().unwrap();
    let network = network();
    let stays = builder(&network).start().await.unwrap();
    let node = builder(&network).data_dir(home.path()).join(stays.ticket()).start().await.unwrap();
    let id = node.id();
    node.shutdown().await;
    // Nobody is named: it finds the other among the peers of its last life.
    let again = builder(&network).data_dir(home.path()).start().await.unwrap();
    assert_eq!(again.id(), id);
    let key: Key = stays.id().key();
    assert_eq!(again.lookup(key).await.unwrap().root.id, stays.id());
}

#[tokio::test]
async fn a_shutdown_is_one_call_for_all_handles() {
    let nodes = ring(2).await;
    let (node, clone) = (nodes[1].clone(), nodes[1].clone());
    let publisher = node.publisher("a").unwrap();
    timeout(PATIENCE, async { tokio::join!(node.shutdown(), clone.clone().shutdown()) }).await.unwrap();
    clone.clone().shutdown().await;
    assert_eq!(clone.stopped().await, Stopped::Shutdown);
    assert_eq!(publisher.send("x").await.unwrap_err(), PublishError::Stopped);
    assert!(clone.subscribe("a").await.is_err() && clone.status().await.is_none());
    assert!(clone.lookup(Key(1)).await.is_err());
}

#[tokio::test]
async fn the_last_handle_takes_the_node_with_it() {
    let mut nodes = ring(2).await;
    let last = nodes.pop().unwrap();
    let id = last.id();
    let subscription = last.subscribe("a").await.unwrap();
    drop(last);
    // A subscription is a handle, too.
    assert_eq!(nodes[0].lookup(id.key()).await.unwrap().root.id, id);
    drop(subscription);
    let gone = async { while nodes[0].lookup(id.key()).await.is_ok_and(|found| found.root.id == id) {} };
    timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn what_one_node_broadcasts_all_others_hear_and_readers_end_with_their_node() {
    let mut nodes = ring(3).await;
    let mut readers: Vec<_> = nodes.iter().map(Scribe::broadcasts).collect();
    nodes[0].broadcast("to all").await.unwrap();
    for reader in &mut readers[1..] {
        let heard = timeout(PATIENCE, reader.next()).await.unwrap().unwrap();
        assert_eq!((heard.origin, &heard.payload[..], heard.missed), (nodes[0].id(), &b"to all"[..], 0));
    }
    nodes[2].broadcast("and back").await.unwrap();
    // The first that a node hears is not its own.
    assert_eq!(timeout(PATIENCE, readers[0].next()).await.unwrap().unwrap().payload, "and back");

    let limit = Config::default().max_broadcast;
    let too_large = nodes[0].broadcast(vec![0; limit + 1]).await.unwrap_err();
    assert_eq!(too_large, BroadcastError::TooLarge { len: limit + 1, limit });
    let last = nodes.pop().unwrap();
    last.clone().shutdown().await;
    assert_eq!(timeout(PATIENCE, readers[2].next()).await.unwrap(), None);
    assert_eq!(last.broadcast("too late").await, Err(BroadcastError::Stopped));
    assert_eq!(last.broadcasts().next().await, None);
}
