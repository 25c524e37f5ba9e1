//! `lab churn`: nodes come and go all the time, and lookups go on (MSPastry §5). Lookups lost and wrong,
//! what upkeep costs, and how long a dead node's range is nobody's.

mod control;
mod figures;
mod life;
mod sweep;
mod traces;
mod unclaimed;

use std::panic::resume_unwind;
use std::time::Duration;

use clap::Args;
use treecast_overlay::pastry::Node;

use self::life::{ChurnPlan, Observed};
use self::traces::SessionTrace;
pub(super) use self::traces::wait;
use super::growth::grow;
use super::run::Run;
use super::{Error, Progress, Setting};
use crate::report::Report;

/// Nodes come and go: lookups lost and wrong, stretch, control traffic, unclaimed ranges
#[derive(Args, Clone, Debug)]
#[command(after_long_help = HELP)]
pub struct ChurnOptions {
    #[command(flatten)]
    setting: Setting,
    /// Half of all sessions are shorter than this
    #[arg(long, value_name = "MINUTES", default_value_t = 60.0, value_parser = minutes)]
    session_median: f64,
    /// Frames that vanish
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    loss: f64,
    /// How long nodes stay
    #[arg(long, value_enum, default_value_t = SessionTrace::Exponential)]
    trace: SessionTrace,
    /// How many lookups are measured: 0.01 a second for each node
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    lookups: u64,
    /// Rings that share the lookups, each with a seed of its own, a thread and a core
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    worlds: u8,
    /// Seconds of churn before anything is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 1200)]
    warm: u64,
    /// Medians of 5, 15, 30, 60, 120, 600 minutes at losses of 0, 1, 5 %, one after the other
    #[arg(long, conflicts_with_all = ["session_median", "loss"])]
    sweep: bool,
}

const HELP: &str = "The ring grows by the protocol and settles; its nodes have the rest of a session before them.
From then on newcomers come at random, as many a second as make up for those who go, each a node that nobody has
seen, through three nodes of the ring. A session ends in a crash: the node loses power, and nobody hears of it (as in
MSPastry's and Bamboo's experiments). After --warm seconds the measurement begins; after the last lookup nobody comes
or goes.
  lookups    to random keys, from random nodes of the ring, at random times
  lost       not answered within 60 s, or with an error, though the origin lived; abandoned: the origin died
  wrong      an answer that was decided by a node that, at that instant, was not the closest of those whose
             leases run, or while another answered, too (promise O1); excused: more than half of a side of a
             leaf set had failed
  stretch    from the question until the root decides, over the latency of the direct way: waiting for the dead
             and for lost frames counts (MSPastry's relative delay penalty); way_stretch: latencies of the hops
             alone, as in lab routing; pairs on one router and nodes that ask for what is their own are left out
             of both
  control    every frame that does not carry a lookup over a hop for the first time: acknowledgements, answers,
             repeated hops, probes, leases, joins, repair, search for near nodes; per live node, joiners
             included; bytes without the transport's prefix and encryption
  unclaimed  for each crash of a node that answered for its range: until each of three points of the range (its
             ends and its middle) had somebody who answered for it, looked at every 20 ms
  unserved   share of random keys, one a second, for which nobody answered: heirs lose their leases, too
  neighbours_right  share of nodes, every 10 s, whose neighbours are the true ones: the dead are wrong until
             found
  ring_correct  65 s after the churn ended, loss going on: all who live are on the ring, and have the true neighbours";

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "a number of minutes is expected".to_string())?;
    let is_sound = (0.1..=100_000.0).contains(&minutes);
    is_sound.then_some(minutes).ok_or_else(|| "0.1 to 100000 minutes are possible".to_string())
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "a number of percent is expected".to_string())?;
    (0.0..=90.0).contains(&percent).then_some(percent).ok_or_else(|| "0 to 90 % are possible".to_string())
}

impl ChurnOptions {
    fn plan(&self, lookups: u64) -> ChurnPlan {
        ChurnPlan {
            trace: self.trace,
            median: Duration::from_secs_f64(self.session_median * 60.0),
            loss: self.loss / 100.0,
            warm: Duration::from_secs(self.warm),
            lookups,
        }
    }
}

/// Grows a ring, lets nodes come and go, and says how that went.
pub fn run(options: &ChurnOptions, progress: &Progress) -> Result<Report, Error> {
    if options.sweep {
        return sweep::run(options, progress);
    }
    let (run, seen) = measure(options, progress)?;
    Ok(figures::report(options, &run, figures::figures(&run, options, &seen), &seen))
}

fn measure(options: &ChurnOptions, progress: &Progress) -> Result<(Run, Observed), Error> {
    let worlds = u64::from(options.worlds);
    let hidden = Progress::hidden();
    let parts: Vec<Result<(Run, Observed), Error>> = std::thread::scope(|scope| {
        let world = |n| {
            let setting = Setting { seed: options.setting.seed.wrapping_add(n), ..options.setting.clone() };
            let lookups = options.lookups / worlds + u64::from(n < options.lookups % worlds);
            let (plan, progress) = (options.plan(lookups), if n == 0 { progress } else { &hidden });
            scope.spawn(move || live_in(&setting, plan, progress))
        };
        let worlds: Vec<_> = (0..worlds).map(world).collect();
        let join = |world: std::thread::ScopedJoinHandle<'_, _>| world.join();
        worlds.into_iter().map(join).map(|part| part.unwrap_or_else(|why| resume_unwind(why))).collect()
    });
    let parts: Result<Vec<(Run, Observed)>, Error> = parts.into_iter().collect();
    let (runs, seen): (Vec<Run>, Vec<Observed>) = parts?.into_iter().unzip();
    let seen = seen.into_iter().reduce(Observed::and);
    let (Some(run), Some(seen)) = (Run::of_all(runs), seen) else {
        return Err(Error::Usage("--worlds: one at least".to_string()));
    };
    Ok((Run { seed: options.setting.seed, ..run }, seen))
}

/// One world: a ring grows, and lives.
fn live_in(setting: &Setting, plan: ChurnPlan, progress: &Progress) -> Result<(Run, Observed), Error> {
    let nodes = setting.nodes();
    let mut grown = grow::<Node>(setting, nodes, setting.topology(), progress)?;
    let (cluster, seen) = life::live(grown.cluster, plan, progress);
    grown.cluster = cluster;
    Ok((Run { nodes, ..Run::of("churn", setting, &grown) }, seen))
}
