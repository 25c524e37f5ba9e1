//! `lab delivery`: what becomes of messages while roots, forwarders and others die, leave and come.

mod account;
mod births;
pub mod bulk;
mod counting;
mod figures;
mod members;
mod run;
mod tap;

use std::time::Duration;

use clap::{Args, ValueEnum};
use treecast_overlay::pastry::Node;
use treecast_scribe::Topic;

use self::run::DeliveryPlan;
use self::tap::DeliveryTap;
use super::groups::Groups;
use super::growth::{grow_in, leave_alone};
use super::run::Run;
use super::{Error, Progress, Setting, publishing};
use crate::report::Report;
use crate::world::Shared;

/// Messages while nodes die: what is lost, doubled, out of order or announced, and how soon all is well again
#[derive(Args, Clone, Debug)]
#[command(after_long_help = HELP)]
pub struct DeliveryOptions {
    #[command(flatten)]
    setting: Setting,
    /// Topics
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    topics: u32,
    /// Subscribers of each topic
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    /// Messages a second on each topic
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = rate)]
    rate: f64,
    /// Publishers of each topic, in turn; nodes that are not killed
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    publishers: u32,
    /// Minutes of virtual time in which messages are published
    #[arg(long, value_name = "MINUTES", default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Every 10 s one of these dies, of the next topic in turn, and a node that nobody has seen joins
    #[arg(long, value_enum, default_value_t = Victim::Root)]
    kill: Victim,
    /// Instead: so many of all nodes die at once, at mid-run
    #[arg(long, value_name = "PERCENT", conflicts_with = "kill", value_parser = percent)]
    remove: Option<f64>,
    /// Instead: all nodes but two are told to leave in the same instant, at mid-run; of 32 nodes unless said otherwise
    #[arg(long, conflicts_with_all = ["kill", "remove"])]
    mass_leave: bool,
    /// Frames that vanish
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    loss: f64,
    /// Copies of each log, instead of Scribe's figure
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(1..=7))]
    copies: Option<u8>,
    /// Seconds between the last subscription and the first message
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    rest: u64,
    /// Tell on stderr what nodes say of this topic's log, and who dies; messages and acknowledgements left out
    #[arg(long, value_name = "TOPIC")]
    tell: Option<u32>,
    /// Tell messages and acknowledgements, too
    #[arg(long, requires = "tell")]
    tell_all: bool,
}

/// The node that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Victim {
    /// The topic's root
    Root,
    /// The node with the most children, the root excepted
    Forwarder,
    /// A member of the topic's log, the root excepted
    Member,
    /// Any node
    Random,
    /// The topic's root leaves in order
    Leave,
    /// Nobody
    None,
}

/// What happens to the ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Blow {
    /// One node after the other dies.
    Kill(Victim),
    /// So many percent die at once.
    Remove(f64),
    /// All but two leave at once.
    MassLeave,
}

const HELP: &str = "Each topic has --subscribers random subscribers, and --publishers publishers that take turns. Publishers
stand far from the topics' keys and are not killed. A node that dies loses power: nobody hears of it. Its successor on
the ring subscribes to what it subscribed to, once it is ready. Then the last messages are waited for.
  expected, delivered  pairs of an acknowledged message and a subscription that had its start before the message was
             published (or its place), and whose node lived until the message was settled; those that got it
  lost_acknowledged  such pairs that did not come, but for those that were announced and owed (below)
  lost_owed  pairs that did not come, were announced, and lay in a birth for want of a majority that was killed; with
             --remove only what no survivor's window held
  gaps_silent  pairs that did not come and were not announced, messages without a receipt that others got included
  unforced_gaps, births_forced  gaps, and births that lack something, though no majority of a configuration that counted
             (by the entries on the wire) had been killed
  named      from a member's death (told to leave) until a committed configuration has as many members as there should
             be without it; replica_named: of these, where the root lived; full_again: until all of these hold everything up to there; looked at every 20 ms
  recovery   from a death until the next delivery of a message that was published after it, at each subscription that
             had the dead node above it; forwarder_recovery: of these, where the root lived; root_recovery: until the next receipt of one, for topics whose root died
  copies_per_delivery  payload frames that came over links of trees / the first of each message at each node
  retransmitted  messages sent to a node again by the same sender;  pulled: messages that came because asked for
  late_copies  first copies of messages more than 50 behind the newest of their topic: nodes that catch up
  replica_copies_per_message  other first copies at members that neither subscribe nor have children / acknowledged
  forwarder_share  other first copies at nodes that neither subscribe nor are members or root / all first copies
  control_bytes_per_delivered_byte  bytes of all frames that carry no message, the ring's upkeep included / payload
             bytes delivered";

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a number of messages a second is expected".to_string())?;
    (0.01..=1000.0)
        .contains(&rate)
        .then_some(rate)
        .ok_or_else(|| "0.01 to 1000 a second are possible".to_string())
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "a number of minutes is expected".to_string())?;
    (0.1..=1000.0)
        .contains(&minutes)
        .then_some(minutes)
        .ok_or_else(|| "0.1 to 1000 minutes are possible".to_string())
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "a number of percent is expected".to_string())?;
    (0.0..=90.0).contains(&percent).then_some(percent).ok_or_else(|| "0 to 90 % are possible".to_string())
}

impl DeliveryOptions {
    fn blow(&self) -> Blow {
        match self.remove {
            Some(percent) => Blow::Remove(percent),
            None if self.mass_leave => Blow::MassLeave,
            None => Blow::Kill(self.kill),
        }
    }

    fn nodes(&self) -> usize {
        let few = if self.mass_leave { 32 } else { 1000 };
        self.setting.nodes.map_or(few, |nodes| nodes as usize)
    }

    fn scribe(&self) -> treecast_scribe::Config {
        let mut config = treecast_scribe::Config::default();
        let copies = &mut config.replication.copies;
        *copies = self.copies.map_or(*copies, usize::from);
        config
    }
}

/// Grows a ring, subscribes, publishes and kills, and says what came of it.
pub fn run(options: &DeliveryOptions, progress: &Progress) -> Result<Report, Error> {
    let (setting, nodes, scribe) = (&options.setting, options.nodes(), options.scribe());
    let size = options.subscribers as usize;
    if size > nodes {
        return Err(Error::Usage(format!("--subscribers {size}: the ring has only {nodes} nodes")));
    }
    let copies = scribe.replication.copies;
    let mut grown = grow_in::<Node>(setting, nodes, setting.world(setting.topology()), scribe, progress)?;
    let cluster = &mut grown.cluster;
    let slots: Vec<u32> = cluster.roster.iter().map(|(_, slot)| slot).collect();
    let sizes = vec![size; options.topics as usize];
    let groups = Groups::new(&sizes, &slots, &mut cluster.world.stream("lab/groups"));
    let tap: Shared<DeliveryTap> = Shared::default();
    cluster.world.attach(Shared::clone(&tap));
    publishing::subscribe(cluster, &groups, progress)?;
    leave_alone(cluster, Duration::from_secs(options.rest), progress);
    let plan = DeliveryPlan {
        blow: options.blow(),
        rate: options.rate,
        publishers: options.publishers as usize,
        loss: options.loss / 100.0,
        time: Duration::from_secs_f64(options.minutes * 60.0),
        copies,
        tells: options.tell.is_some(),
    };
    let told = options.tell.and_then(|number| groups.topics.get(number as usize));
    tap.borrow_mut().told = told.map(Topic::id);
    tap.borrow_mut().tells_all = options.tell_all;
    let (cluster, outcome) = run::run(grown.cluster, &groups, tap, plan, progress);
    grown.cluster = cluster;
    let run = Run { nodes, ..Run::of("delivery", setting, &grown) };
    Ok(figures::report(options, &run, plan, &outcome))
}
