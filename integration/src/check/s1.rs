//! S1, tree: no loops, parents and children agree, and every subscriber's way up ends at the one root; and at rest the
//! trees have their shape: no node has too many children, none forwards for one child only.

use std::collections::{BTreeMap, BTreeSet};

use treecast_overlay::config::Role;
use treecast_overlay::id::NodeId;
use treecast_scribe::TopicId;
use treecast_scribe::event::TreeStatus;
use treecast_scribe::forest::Forest;

use super::{FanOut, Promise, Scene, Seen, Verdict};

/// One topic's nodes.
type Places = BTreeMap<NodeId, TreeStatus>;

/// Judges all trees of all nodes that live.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    let mut topics: BTreeMap<TopicId, Places> = BTreeMap::new();
    for (seen, forest) in scene.forests() {
        for tree in forest.trees() {
            topics.entry(tree.topic).or_default().insert(seen.node.peer().id, tree);
        }
    }
    let mut topics = topics.iter();
    topics.try_for_each(|(topic, places)| whole(*topic, places)).map_err(|what| Promise::S1.broken(what))
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

/// A node's places, and what they sum up to.
struct Grower {
    edge: bool,
    /// Children in all trees.
    entries: usize,
    /// Topics that it subscribes to, or is the root of.
    own: usize,
    places: BTreeMap<TopicId, TreeStatus>,
}

/// Judges the shape of all trees of all nodes that live.
pub fn judge_shape(scene: &Scene<'_>) -> Verdict {
    let grower = |(seen, forest): (&Seen<'_>, &Forest)| {
        let trees = forest.trees();
        let grower = Grower {
            edge: matches!(seen.node.role(), Role::Edge { .. }),
            entries: forest.entries(),
            own: trees.iter().filter(|tree| tree.is_root || tree.is_member || tree.subscriptions > 0).count(),
            places: trees.into_iter().map(|tree| (tree.topic, tree)).collect(),
        };
        (seen.node.peer().id, grower)
    };
    let growers = scene.forests().map(grower).collect();
    shapely(&growers, scene.fan_out).map_err(|what| Promise::S1.broken(what))
}

/// Whether each node that has too many children could not help it: edges stay with their access nodes, and a child is
/// handed over to a sibling that has room.
fn shapely(growers: &BTreeMap<NodeId, Grower>, limit: FanOut) -> Result<(), String> {
    let most = |grower: &Grower| limit.node.max(2 * grower.own);
    for (id, grower) in growers {
        for (topic, place) in &grower.places {
            // Members are children of the root whatever it has, and stay although they forward for one only.
            let is_member = |child: &&NodeId| {
                let place = growers.get(child).and_then(|child| child.places.get(topic));
                place.is_some_and(|place| place.is_member)
            };
            let others = place.children.iter().filter(|child| !is_member(child));
            let count = others.clone().count();
            let movable: Vec<_> =
                others.filter_map(|child| growers.get(child)).filter(|child| !child.edge).collect();
            let forwards = !place.is_root && !place.is_member && place.subscriptions == 0;
            if forwards && place.parent.is_some() && count == 1 && movable.len() == 1 {
                return Err(format!("{topic:?}: {id:?} forwards for {:?} only", place.children));
            }
            let room = |child: &&Grower| {
                let taken = child.places.get(topic).map_or(0, |place| place.children.len());
                taken < 2 * limit.tree && child.entries < most(child)
            };
            if movable.len() < 2 || !movable.iter().any(room) {
                continue;
            }
            if count > limit.tree {
                return Err(format!("{topic:?}: {id:?} has {count} children; allowed are {}", limit.tree));
            }
            if grower.entries > most(grower) {
                let (entries, most) = (grower.entries, most(grower));
                return Err(format!("{id:?} has {entries} children in all trees; allowed are {most}"));
            }
        }
    }
    Ok(())
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
            is_member: false,
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

    /// Node 0 is the root of so many children; so many of these, from the last, are edges.
    fn star(children: u128, edges: u128) -> BTreeMap<NodeId, Grower> {
        let topic = TopicId(Key(7));
        let node = |i: u128| {
            let below: Vec<NodeId> = if i == 0 { (1..=children).map(NodeId).collect() } else { Vec::new() };
            let parent = (i > 0).then_some(NodeId(0));
            let place = TreeStatus {
                topic,
                parent,
                is_root: i == 0,
                children: below,
                is_member: false,
                subscriptions: usize::from(i > 0),
            };
            let (edge, entries) = (i > children - edges, place.children.len());
            (NodeId(i), Grower { edge, entries, own: 1, places: [(topic, place)].into() })
        };
        (0..=children).map(node).collect()
    }

    #[test]
    fn trees_out_of_shape_are_seen() {
        let limit = FanOut { tree: 4, node: 8 };
        let verdict =
            |growers: &BTreeMap<NodeId, Grower>, limit| shapely(growers, limit).err().unwrap_or_default();
        assert_eq!(verdict(&star(4, 0), limit), "");
        assert!(verdict(&star(5, 0), limit).contains("has 5 children"));
        assert!(verdict(&star(5, 0), FanOut { tree: 8, node: 4 }).contains("5 children in all trees"));
        assert_eq!(verdict(&star(5, 4), limit), "", "edges stay, and one child has no sibling to go to");
        let mut growers = star(5, 0);
        growers.iter_mut().filter(|(id, _)| id.0 > 0).for_each(|(_, grower)| grower.entries = 8);
        assert_eq!(verdict(&growers, limit), "", "no sibling has room");
        growers = star(1, 0);
        let place = growers.get_mut(&NodeId(0)).unwrap().places.values_mut().next().unwrap();
        (place.is_root, place.parent) = (false, Some(NodeId(9)));
        assert!(verdict(&growers, limit).contains("forwards for"));
        let place = growers.get_mut(&NodeId(0)).unwrap().places.values_mut().next().unwrap();
        place.subscriptions = 1;
        assert_eq!(verdict(&growers, limit), "");
    }
}
