//! The figures of one run, and how they are told.

use super::counting::Times;
use super::run::{DeliveryPlan, Outcome, PAYLOAD};
use super::{Blow, DeliveryOptions, Victim};
use crate::lab::run::Run;
use crate::report::{Figures, Report};

fn blow(plan: DeliveryPlan) -> String {
    match plan.blow {
        Blow::Kill(Victim::Root) => "a root dies every 10 s".to_string(),
        Blow::Kill(Victim::Forwarder) => "a forwarder dies every 10 s".to_string(),
        Blow::Kill(Victim::Member) => "a member dies every 10 s".to_string(),
        Blow::Kill(Victim::Random) => "a random node dies every 10 s".to_string(),
        Blow::Kill(Victim::Leave) => "a root leaves every 10 s".to_string(),
        Blow::Kill(Victim::None) => "nobody dies".to_string(),
        Blow::Remove(percent) => format!("{percent} % die at once"),
        Blow::MassLeave => "all but two leave at once".to_string(),
    }
}

pub(super) fn report(options: &DeliveryOptions, run: &Run, plan: DeliveryPlan, seen: &Outcome) -> Report {
    let mut report = run.report();
    let (what, loss) = (blow(plan), options.loss);
    report.conditions.extend([
        ("topics", options.topics.to_string()),
        ("subscribers", options.subscribers.to_string()),
        ("rate", format!("{}/s a topic", options.rate)),
        ("time", format!("{} min", options.minutes)),
        ("copies", plan.copies.to_string()),
        ("loss", format!("{loss} %")),
        ("what happens", what.clone()),
    ]);
    let mut figures = Figures::of(run);
    figures.set("topics", options.topics);
    figures.set("subscribers", options.subscribers);
    figures.set("rate", options.rate);
    figures.set("minutes", options.minutes);
    figures.set("copies", plan.copies);
    figures.set("loss_percent", loss);
    figures.set("what", what);
    add_events(&mut figures, plan, seen);
    add_promises(&mut figures, plan, seen);
    add_times(&mut figures, seen);
    add_cost(&mut figures, plan, seen);
    report.faults = faults(seen);
    report.notes.extend(seen.totals.words.iter().chain(&seen.words).cloned());
    report.with(figures)
}

fn add_events(figures: &mut Figures, plan: DeliveryPlan, seen: &Outcome) {
    let Outcome { killed, left, joined, skipped, .. } = *seen;
    figures.set("killed", killed);
    figures.set("left", left);
    figures.set("joined", joined);
    figures.set("skipped", skipped);
    figures.tell(
        "killed, left, joined",
        format!("{killed}, {left}, {joined} ({skipped} times there was nobody to kill)"),
    );
    if matches!(plan.blow, Blow::Remove(_)) {
        figures.count(
            "majority_removed",
            "topics that lost a majority of their members",
            seen.majority_removed,
        );
        figures.count("all_removed", "topics that lost all members", seen.all_removed);
    }
}

fn add_promises(figures: &mut Figures, plan: DeliveryPlan, seen: &Outcome) {
    let totals = &seen.totals;
    figures.count("published", "published", totals.published);
    figures.count("acknowledged", "acknowledged", totals.acknowledged);
    figures.count("outcome_unknown", "outcome unknown", totals.outcome_unknown);
    figures.count("refused", "refused", totals.refused);
    figures.count("unanswered", "unanswered", totals.unanswered);
    figures.count("expected", "expected", totals.expected);
    let delivered = figures.count("delivered", "delivered", totals.delivered);
    if matches!(plan.blow, Blow::Remove(_)) {
        delivered.beside(
            "10, 30 %: all; 50 %: 0–4 of 500 missed; 70 %: 7–23 of 300",
            "M8 run, iroh-gossip's simulator, failures known at once",
        );
    }
    figures.count("deliveries", "deliveries in all", totals.deliveries);
    figures.count("duplicates", "duplicates", totals.duplicates);
    figures
        .count("lost_acknowledged", "acknowledged and lost", totals.lost_acknowledged)
        .beside("14.1 %", "M11 pub, NATS JetStream 2.12.1 at coordinated power failure");
    figures.count("lost_owed", "… lost with a majority, and said so", totals.lost_owed);
    figures.count("order_violations", "out of order", totals.order_violations);
    let [unreplicated, too_old, other_log] = totals.gaps;
    figures.count("gaps_announced", "gaps announced", unreplicated + too_old + other_log);
    figures.set("gaps_unreplicated", unreplicated);
    figures.set("gaps_too_old", too_old);
    figures.set("gaps_other_log", other_log);
    figures.tell("… unreplicated, too old, other log", format!("{unreplicated}, {too_old}, {other_log}"));
    figures.count("gaps_silent", "gaps not announced", totals.gaps_silent);
    figures.count("unforced_gaps", "gaps that nobody owed", totals.unforced_gaps);
    figures.set("births", seen.births.all);
    figures.set("births_complete", seen.births.complete);
    figures.set("births_owed", seen.births.owed);
    let births = format!("{}, {}, {}", seen.births.all, seen.births.complete, seen.births.owed);
    figures.tell("logs begun anew; complete; for want of a majority", births);
    figures.count("births_forced", "… and those that nobody owed", seen.births.forced);
}

pub(super) fn percentiles(
    figures: &mut Figures,
    key: &str,
    name: &str,
    times: &Times,
    anchor: Option<(&str, &str)>,
) {
    figures.set(&format!("{key}_count"), times.count());
    figures.show(&format!("{key}_p50"), &format!("{name}, ms: median"), times.quantile(0.5));
    let row = figures.show(&format!("{key}_p99"), "… 99 %", times.quantile(0.99));
    if let Some((theirs, source)) = anchor {
        row.beside(theirs, source);
    }
    figures.show(&format!("{key}_max"), "… max", times.max());
}

fn add_times(figures: &mut Figures, seen: &Outcome) {
    let totals = &seen.totals;
    percentiles(figures, "named_ms", "dead member replaced", &seen.named, None);
    percentiles(figures, "replica_named_ms", "… where the root lived", &seen.replica_named, None);
    percentiles(figures, "full_again_ms", "… and all copies full", &seen.full_again, None);
    figures.set("never_named", seen.missing.0);
    figures.set("never_full", seen.missing.1);
    figures.tell("never replaced, never full", format!("{}, {}", seen.missing.0, seen.missing.1));
    let repair = ("180 s; 6 s", "M10 pub, FreePastry's and OverSim's look after a parent");
    percentiles(figures, "recovery_ms", "death to next delivery", &totals.recovery_ms, Some(repair));
    let lived = &totals.forwarder_recovery_ms;
    percentiles(figures, "forwarder_recovery_ms", "… where the root lived", lived, None);
    figures.count("never_recovered", "… and nothing came", seen.never_recovered);
    percentiles(figures, "root_recovery_ms", "root's death to next receipt", &totals.root_recovery_ms, None);
    percentiles(figures, "receipts_ms", "receipt", &totals.receipts_ms, None);
    percentiles(figures, "delivery_ms", "delivery", &totals.delivery_ms, None);
    figures.show("drained_s", "until the last was settled, s", seen.drained.as_secs_f64());
}

fn add_cost(figures: &mut Figures, plan: DeliveryPlan, seen: &Outcome) {
    let (cost, totals) = (&seen.cost, &seen.totals);
    let share = |some: u64, all: u64| (all > 0).then(|| some as f64 / all as f64);
    let name = format!("receipts with {} copies, share", plan.copies);
    figures.show("receipts_with_all_copies", &name, share(totals.receipts_full, totals.acknowledged));
    figures.set("copies_received", cost.copies);
    figures
        .show("copies_per_delivery", "copies per delivery", share(cost.copies, cost.first))
        .beside("1.44–1.51; 5.4–6.3", "M6 run, iroh-gossip, random senders; M7 pub, gossipsub");
    figures.count("retransmitted", "sent again", cost.retransmitted);
    figures.count("pulled", "asked for", cost.pulled);
    let replicas = share(cost.at_replicas, totals.acknowledged);
    figures.show("replica_copies_per_message", "copies at members alone, per message", replicas);
    figures.count("late_copies", "copies at nodes that catch up", cost.late);
    figures.show("forwarder_share", "share of copies at forwarders", share(cost.at_forwarders, cost.first));
    let control = seen.bytes.saturating_sub(cost.message_bytes);
    let delivered = totals.deliveries * PAYLOAD as u64;
    figures.show(
        "control_bytes_per_delivered_byte",
        "control bytes per delivered byte",
        share(control, delivered),
    );
    figures.show(
        "message_bytes_per_delivered_byte",
        "message bytes per delivered byte",
        share(cost.message_bytes, delivered),
    );
    let bytes = format!("control {control}, messages {}", cost.message_bytes);
    figures.tell("bytes", bytes);
}

fn faults(seen: &Outcome) -> Vec<String> {
    let totals = &seen.totals;
    let counts = [
        (totals.lost_acknowledged, "S4: acknowledged, and never delivered"),
        (totals.duplicates, "S2: deliveries beyond the first"),
        (totals.order_violations, "S3: deliveries out of order"),
        (totals.gaps_silent, "S5: messages that neither came nor were announced as lost"),
        (totals.unforced_gaps, "S5: gaps that nobody owed"),
        (seen.births.forced, "S4: logs that began anew with a loss, though a majority of the members lived"),
        (totals.unanswered, "S4: publications without an answer"),
    ];
    let found = counts.into_iter().filter(|(count, _)| *count > 0);
    found.map(|(count, what)| format!("{what}: {count}")).collect()
}
