//! A run in which processes are killed, paused and started again, as a seed says.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rand::RngExt;
use treecast_scribe::overlay::random::{Rng, stream};

use crate::options::Options;
use crate::support::observers::{Verdict, judge, judge_one_log};
use crate::town::{Plan, Roles, Town, Who};

/// How long one that was killed is away, in milliseconds, and how long one sleeps: within and beyond its leases (4 s), and
/// beyond the 10 s after which a parent drops a silent child.
const AWAY: std::ops::Range<u64> = 0..15_000;
const SLEEP: std::ops::Range<u64> = 200..14_000;

/// From the command line: tells everything at once.
pub(crate) fn run(options: &Options) -> ExitCode {
    println!("{options}");
    let (done, verdict) = chaos(options, true);
    println!("{done}");
    println!("{verdict}");
    ExitCode::SUCCESS
}

/// Fails unless every promise held. Returns what was done, and what came of it.
pub(crate) fn chaos(options: &Options, aloud: bool) -> (String, Verdict) {
    let count = |n: u64| usize::try_from(n).unwrap();
    let mut town = Town::found(Plan {
        nodes: count(options.nodes),
        publishers: count(options.publishers),
        subscribers: count(options.subscribers),
        rate: options.rate,
        aloud,
        logs: options.logs.clone(),
        again: options.to_string(),
    });
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&options.seed.to_le_bytes());
    let mut chance =
        Chance { rng: stream(&seed, "chaos"), nodes: count(options.nodes), brutal: options.brutal };
    let end = Instant::now() + options.duration();
    while Instant::now() < end {
        let roles = town.look();
        match options.brutal {
            false => chance.one_at_a_time(&mut town, roles.as_ref()),
            true => chance.burst(&mut town, roles.as_ref()),
        }
    }
    town.finish();
    // Where a majority may have ended, a gap may cover what is lost.
    let verdict = match options.brutal {
        false => town.judge(judge_one_log, Verdict::is_broken_or_has_gaps),
        true => town.judge(judge, Verdict::is_broken),
    };
    (town.done(), verdict)
}

struct Chance {
    rng: Rng,
    /// Nodes of the town.
    nodes: usize,
    brutal: bool,
}

impl Chance {
    /// Something happens to one process. Then the log is full again, and some time passes.
    fn one_at_a_time(&mut self, town: &mut Town, roles: Option<&Roles>) {
        self.happens(town, roles);
        let full = town.until_full("after that");
        town.tell(&format!("the log is full, {full:.1?} later"));
        town.go_on_for(Duration::from_millis(self.rng.random_range(0..1500)));
    }

    /// Something happens to several processes, closer together than repair takes. Then there are receipts again.
    fn burst(&mut self, town: &mut Town, roles: Option<&Roles>) {
        for _ in 0..self.rng.random_range(2..=5) {
            self.happens(town, roles);
            town.go_on_for(Duration::from_millis(self.rng.random_range(0..1500)));
        }
        let begun = Instant::now();
        let served = |town: &Town| {
            let mut publishers = town.publishers_up().peekable();
            publishers.peek().is_none() || town.is_served_since(begun)
        };
        town.until("a receipt after that", served);
        town.tell(&format!("there are receipts, {:.1?} later", begun.elapsed()));
    }

    fn happens(&mut self, town: &mut Town, roles: Option<&Roles>) {
        // As many draws whatever is there: the same seed chooses alike.
        let (kind, which, dies) =
            (self.rng.random_range(0..10), self.rng.random_range(0..usize::MAX), self.rng.random_bool(0.5));
        let away = Duration::from_millis(self.rng.random_range(AWAY));
        let sleep = Duration::from_millis(self.rng.random_range(SLEEP));
        let Some((who, role)) = self.victim(town, roles, kind, which) else { return };
        match dies {
            true => town.kill(who, role, Some(away)),
            false => town.pause(who, role, Some(sleep)),
        }
    }

    /// `None`: too many are away already.
    fn victim(
        &self,
        town: &Town,
        roles: Option<&Roles>,
        kind: usize,
        which: usize,
    ) -> Option<(Who, &'static str)> {
        let choose = |from: Vec<usize>| (!from.is_empty()).then(|| from[which % from.len()]);
        match kind {
            // One always publishes: its receipts say how the log stands.
            0 => {
                let up: Vec<usize> = town.publishers_up().collect();
                (up.len() > 1).then(|| choose(up))?.map(|at| (Who::Publisher(at), ""))
            }
            1 | 2 => choose(town.subscribers_up().collect()).map(|at| (Who::Subscriber(at), "")),
            _ => {
                let up: Vec<usize> = town.nodes_up().collect();
                let enough = if self.brutal { self.nodes / 3 } else { self.nodes * 2 / 3 }.max(3);
                if up.len() <= enough {
                    return None;
                }
                let root = roles.and_then(|roles| roles.root).filter(|root| up.contains(root));
                let member = roles.map_or(Vec::new(), |roles| roles.members.clone());
                let members: Vec<usize> = member.into_iter().filter(|at| up.contains(at)).collect();
                // Most nodes of a large ring mean little to one topic.
                let at = match kind {
                    3..=5 => root.or_else(|| choose(up)),
                    6..=7 => choose(members).or_else(|| choose(up)),
                    _ => choose(up),
                }?;
                let is_member = roles.is_some_and(|roles| roles.members.contains(&at));
                Some((
                    Who::Node(at),
                    match (root == Some(at), is_member) {
                        (true, _) => " (root)",
                        (false, true) => " (member)",
                        (false, false) => "",
                    },
                ))
            }
        }
    }
}
