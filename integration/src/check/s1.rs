//! S1, tree: no loops, parents and children agree, and every subscriber's way up ends at the one root.

use std::collections::{BTreeMap, BTreeSet};

use treecast_overlay::id::NodeId;
use treecast_overlay::machine::Machine;
use treecast_scribe::event::TreeStatus;
use treecast_scribe::{PastryStack, TopicId};

use super::{Promise, Scene, Verdict};

/// One topic's nodes.
type Places = BTreeMap<NodeId, TreeStatus>;

/// Judges all trees of all nodes that live.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    attached(scene.stacks().map(|(_, stack)| stack)).map_err(|what| Promise::S1.broken(what))
}

/// Judges all trees of the nodes that live.
pub fn attached<'a>(stacks: impl Iterator<Item = &'a PastryStack>) -> Result<(), String> {
    let mut topics: BTreeMap<TopicId, Places> = BTreeMap::new();
    for stack in stacks {
        for tree in stack.forest().trees() {
            topics.entry(tree.topic).or_default().insert(stack.peer().id, tree);
        }
    }
    topics.iter().try_for_each(|(topic, places)| whole(*topic, places))
}

/// Judges one tree.
fn whole(topic: TopicId, places: &Places) -> Result<(), String> {
    let subscribers = || places.iter().filter(|(_, tree)| tree.subscriptions > 0);
    let roots: Vec<_> = places.iter().filter(|(_, tree)| tree.is_root).map(|(id, _)| id).collect();
    if roots.len() > 1 || roots.is_empty() && subscribers().next().is_some() {
        return Err(format!("{topic:?} has the roots {roots:?}"));
    }
    for (id, tree) in places {
        if let Some(parent) = tree.parent {
            let agreed = places.get(&parent).is_some_and(|other| other.children.contains(id));
            if !agreed {
                return Err(format!("{topic:?}: {id:?} takes {parent:?} for its parent, which disagrees"));
            }
        }
        for child in &tree.children {
            if places.get(child).is_none_or(|other| other.parent != Some(*id)) {
                return Err(format!("{topic:?}: {id:?} takes {child:?} for its child, which disagrees"));
            }
        }
    }
    for (id, _) in subscribers() {
        climb(topic, places, *id)?;
    }
    Ok(())
}

/// Follows the parents of a node up to the root.
fn climb(topic: TopicId, places: &Places, from: NodeId) -> Result<(), String> {
    let (mut at, mut seen) = (from, BTreeSet::new());
    loop {
        if !seen.insert(at) {
            return Err(format!("{topic:?}: a loop through {at:?}, above {from:?}"));
        }
        match places.get(&at) {
            Some(tree) if tree.is_root => return Ok(()),
            Some(TreeStatus { parent: Some(parent), .. }) => at = *parent,
            Some(_) | None => return Err(format!("{topic:?}: {at:?}, above {from:?}, has no parent")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use treecast_overlay::id::Key;

    /// A chain: node 0 is the root, each other hangs on the one before.
    fn chain(len: u128) -> Places {
        let place = |i: u128| TreeStatus {
            topic: TopicId(Key(7)),
            parent: i.checked_sub(1).map(NodeId),
            is_root: i == 0,
            children: (i + 1 < len).then_some(NodeId(i + 1)).into_iter().collect(),
            subscriptions: 1,
        };
        (0..len).map(|i| (NodeId(i), place(i))).collect()
    }

    fn verdict(places: &Places) -> String {
        whole(TopicId(Key(7)), places).err().unwrap_or_default()
    }

    #[test]
    fn broken_trees_are_seen() {
        assert_eq!(verdict(&chain(4)), "");
        let mut places = chain(4);
        places.get_mut(&NodeId(3)).unwrap().is_root = true;
        assert!(verdict(&places).contains("has the roots"));
        places = chain(4);
        places.get_mut(&NodeId(1)).unwrap().children.clear();
        assert!(verdict(&places).contains("for its parent, which disagrees"));
        places = chain(4);
        places.get_mut(&NodeId(2)).unwrap().parent = None;
        assert!(verdict(&places).contains("for its child, which disagrees"));
        places = chain(4);
        places.get_mut(&NodeId(0)).unwrap().children.clear();
        let first = places.get_mut(&NodeId(1)).unwrap();
        first.parent = None;
        assert!(verdict(&places).contains("has no parent"));
        places.get_mut(&NodeId(1)).unwrap().parent = Some(NodeId(3));
        places.get_mut(&NodeId(3)).unwrap().children.push(NodeId(1));
        assert!(verdict(&places).contains("a loop"));
    }
}
