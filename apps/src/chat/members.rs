//! Who is in the room, by signs of life.

use std::collections::BTreeMap;
use std::time::Duration;

use treecast_scribe::overlay::id::NodeId;

/// Most members that are listed; further ones can talk, but are not.
const MAX_MEMBERS: usize = 1000;
/// How often a member says that it is there, in a room of up to [`CROWD`]; larger rooms take longer in proportion, so
/// that presence costs everybody the same.
const HERE_EVERY: Duration = Duration::from_secs(30);
const CROWD: usize = 16;
/// Missed signs of life after which a member is gone.
const MISSED: u32 = 3;

/// The members of a room, this node excepted.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_id: BTreeMap<NodeId, Member>,
}

#[derive(Debug)]
struct Member {
    nick: String,
    seen: Duration,
}

/// What a sign of life told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing new.
    Known,
    /// Somebody new.
    New,
    /// A known member goes by another nick; the former one.
    Renamed(String),
}

impl Members {
    /// A sign of life. `nick` is fit to be shown.
    pub(super) fn seen(&mut self, now: Duration, id: NodeId, nick: &str) -> News {
        if let Some(member) = self.by_id.get_mut(&id) {
            member.seen = now;
            if member.nick == nick {
                return News::Known;
            }
            return News::Renamed(std::mem::replace(&mut member.nick, nick.to_string()));
        }
        if self.by_id.len() < MAX_MEMBERS {
            self.by_id.insert(id, Member { nick: nick.to_string(), seen: now });
        }
        News::New
    }

    pub(super) fn remove(&mut self, id: NodeId) -> bool {
        self.by_id.remove(&id).is_some()
    }

    /// Takes out who gave no sign of life for too long; their nicks.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<(NodeId, String)> {
        let oldest = now.saturating_sub(self.period() * MISSED);
        let mut gone = Vec::new();
        self.by_id.retain(|id, member| {
            let stays = member.seen >= oldest;
            if !stays {
                gone.push((*id, std::mem::take(&mut member.nick)));
            }
            stays
        });
        gone
    }

    /// How often each member says that it is there.
    pub(super) fn period(&self) -> Duration {
        let crowds = (self.by_id.len() + 1).div_ceil(CROWD);
        HERE_EVERY * u32::try_from(crowds).unwrap_or(u32::MAX)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn nick(&self, id: NodeId) -> Option<&str> {
        self.by_id.get(&id).map(|member| member.nick.as_str())
    }

    /// Whether somebody other than `id` goes by this nick.
    pub(super) fn is_taken(&self, nick: &str, id: NodeId) -> bool {
        self.by_id.iter().any(|(other, member)| *other != id && member.nick == nick)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.by_id.iter().map(|(id, member)| (*id, member.nick.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn members_come_change_nick_and_go_when_silent() {
        let mut members = Members::default();
        assert_eq!(members.seen(at(0), NodeId(1), "ann"), News::New);
        assert_eq!(members.seen(at(50), NodeId(1), "ann"), News::Known);
        assert_eq!(members.seen(at(50), NodeId(1), "anna"), News::Renamed("ann".into()));
        assert_eq!(members.expire(at(140)), []);
        assert_eq!(members.expire(at(141)), [(NodeId(1), "anna".into())]);
    }

    #[test]
    fn a_crowd_is_bounded_and_speaks_less_often() {
        let mut members = Members::default();
        for id in 0..2000 {
            members.seen(at(0), NodeId(id), "x");
        }
        assert_eq!(members.len(), MAX_MEMBERS);
        assert_eq!(members.period(), HERE_EVERY * 63);
    }
}
