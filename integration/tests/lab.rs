//! The laboratory's command, as people call it: small rings, real processes.

use std::process::{Command, Output};

use serde_json::Value;

fn lab(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(arguments.split_whitespace()).output().expect("the command starts")
}

/// Its object in the last line of stdout, and what was printed above. The run must have been without a fault.
fn figures(arguments: &str) -> (Value, String) {
    let output = lab(arguments);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "lab {arguments}: {}\n{out}\n{err}", output.status);
    assert!(err.is_empty(), "stderr is no terminal, and nothing is wrong: {err}");
    let (above, last) = out.trim_end().rsplit_once('\n').expect("a table, then the object");
    (serde_json::from_str(last).expect("the last line is JSON"), above.to_string())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Fields that every experiment's object has.
const RUN: &str = "experiment nodes seed topology profile config bytes_per_node bytes_per_node_own events_per_s wall_s \
                   trace_hash settle_s";

fn expect_fields(figures: &Value, fields: &str) {
    let missing: Vec<&str> = RUN
        .split(' ')
        .chain(fields.split_whitespace())
        .filter(|field| figures.get(field).is_none())
        .collect();
    assert!(missing.is_empty(), "{missing:?} are missing in {figures}");
}

fn number(figures: &Value, field: &str) -> f64 {
    figures[field].as_f64().unwrap_or_else(|| panic!("{field} is no number in {figures}"))
}

#[test]
fn routing_is_right_and_the_same_in_two_processes() {
    let dir = tempfile::tempdir().expect("a directory");
    // Pastry's tables, as in the large rings that these figures are about.
    let run = "routing --nodes 200 --lookups 1000 --settle 20 --seed 7 --full-membership 0 --json";
    let (first, table) = figures(&format!("{run} --out {}", dir.path().display()));
    expect_fields(
        &first,
        "hops_mean hops_max hops_share stretch_mean stretch_p50 stretch_p99 lookups lost wrong join_messages_mean \
         suboptimal_per_level",
    );
    let against = |figure: &str| number(&first, figure) / number(&first, &format!("{figure}_ideal"));
    assert!((0.8..1.02).contains(&against("hops_mean")), "{first}");
    assert!((0.8..1.05).contains(&against("stretch_mean")), "near nodes were not found: {first}");
    assert_eq!((first["lost"].as_u64(), first["wrong"].as_u64()), (Some(0), Some(0)));
    assert!(table.contains("P4 pub/comp"), "{table}");
    for file in ["report.json", "hops.csv", "hops.svg", "stretch.svg", "stretch_by_distance.svg"] {
        assert!(dir.path().join(file).metadata().is_ok_and(|file| file.len() > 20), "{file} is missing");
    }
    let (second, _) = figures(run);
    assert_eq!(first["trace_hash"], second["trace_hash"]);
    assert_eq!(first["stretch_mean"], second["stretch_mean"]);
    let (other, _) =
        figures("routing --nodes 20 --lookups 10 --settle 0 --seed 8 --keys nodes --topology plane --json");
    assert_ne!(first["trace_hash"], other["trace_hash"]);
}

#[test]
fn a_ring_in_which_every_node_knows_every_node_routes_in_one_hop() {
    let (figures, table) =
        figures("routing --geometry full --nodes 100 --lookups 500 --settle 60 --topology plane --json");
    assert_eq!((figures["lost"].as_u64(), figures["wrong"].as_u64()), (Some(0), Some(0)));
    assert!(number(&figures, "hops_mean") <= 1.1, "{figures}");
    assert!(table.contains("geometry full"), "{table}");
}

#[test]
fn a_ring_at_rest_and_ideal_tables_have_figures() {
    let (rest, _) = figures("upkeep --nodes 60 --settle 10 --topology plane --json");
    expect_fields(&rest, "at_rest join wakes_per_node_s bytes_by_part not_serving");
    assert!(number(&rest, "wakes_per_node_s") > 0.0 && rest["not_serving"] == 0, "{rest}");
    let (ideal, _) = figures("ideal --nodes 2000 --lookups 500 --topology plane --json");
    assert!((1.5..3.0).contains(&number(&ideal, "hops_mean")), "{ideal}");
}

#[test]
fn silent_failures_are_repaired_and_no_lookup_is_lost() {
    // The search for near nodes is over when the usual upkeep is counted.
    let (figures, _) = figures(
        "routing --nodes 120 --lookups 500 --settle 240 --fail 10 --leaf-set 16 --topology plane --json",
    );
    let failed = &figures["fail"];
    assert_eq!(failed["failed"], 12);
    for field in ["hops_before", "hops_unrepaired", "hops_repaired", "messages_per_failed_node"] {
        assert!(failed[field].as_f64().is_some_and(|value| value > 0.0), "{field} in {failed}");
    }
}

#[test]
fn trees_reach_every_member_once() {
    let (figures, _) = figures("multicast --nodes 200 --settle 20 --seed 7 --json");
    expect_fields(
        &figures,
        "memberships entries_mean entries_median entries_p99 entries_max tables_mean tables_max rad_median rad_max \
         rmd_median rmd_max link_messages link_messages_ip link_messages_vs_ip link_stress_max link_stress_max_vs_ip \
         copies_per_delivery depth_mean depth_max missed duplicates join_messages_mean",
    );
    assert_eq!((figures["missed"].as_u64(), figures["duplicates"].as_u64()), (Some(0), Some(0)));
    assert!(number(&figures, "rad_median") >= 1.0, "{figures}");
    assert!(number(&figures, "link_messages_vs_ip") > 1.0, "IP multicast uses the fewest links: {figures}");
    assert!(number(&figures, "copies_per_delivery") >= 1.0, "each remote member needs a copy: {figures}");
    assert!(number(&figures, "entries_max") <= 64.0, "the cap does not hold: {figures}");
}

#[test]
fn a_broadcast_costs_one_message_per_node_and_its_way_to_the_root() {
    let (figures, table) = figures("broadcast --setting m9 --messages 200 --settle 5 --rest 5 --json");
    let round = &figures["random_senders"];
    assert_eq!((round["lost"].as_u64(), round["duplicates"].as_u64()), (Some(0), Some(0)));
    assert_eq!(round["redundancy"].as_f64(), Some(0.0), "{round}");
    let messages = number(round, "payload_messages");
    assert!((24.0..=25.0).contains(&messages), "24 deliveries and a way: {messages}");
    assert!(table.contains("M9 pub"), "{table}");
    assert!(figures["one_sender"].is_null());
}

#[test]
fn a_ring_whose_nodes_come_and_go_answers_rightly() {
    let dir = tempfile::tempdir().expect("a directory");
    let run =
        "churn --nodes 40 --session-median 5 --loss 5 --trace weibull --lookups 120 --warm 30 --settle 5";
    let (figures, table) = figures(&format!("{run} --topology plane --json --out {}", dir.path().display()));
    expect_fields(
        &figures,
        "lookups lost wrong lost_rate wrong_rate stretch_mean control_msgs_per_node_s control_bytes_per_node_s \
         unclaimed_ms_p50 unclaimed_ms_p99 unclaimed_ms_max ring_correct",
    );
    let count = |field: &str| figures[field].as_u64();
    assert_eq!([count("lookups"), count("wrong"), count("never_claimed")], [Some(120), Some(0), Some(0)]);
    assert_eq!(figures["ring_correct"], true, "{figures}");
    assert!(number(&figures, "crashes") >= 5.0, "nobody goes: {figures}");
    assert!(
        number(&figures, "stretch_mean") >= 1.0 && number(&figures, "unclaimed_ms_p50") > 100.0,
        "{figures}"
    );
    let kinds = figures["control_by_kind"].as_object().expect("control by kind").values();
    let sum: f64 = kinds.map(|kind| number(kind, "msgs_per_node_s")).sum();
    let all = number(&figures, "control_msgs_per_node_s");
    assert!((sum - all).abs() < 1e-6 && all > 0.5, "the kinds of control are not all of it: {figures}");
    assert!(table.contains("P8 mem") && table.contains("P11 pub"), "{table}");
    for file in ["unclaimed.csv", "timeline.csv", "unclaimed.svg", "control.svg"] {
        assert!(dir.path().join(file).metadata().is_ok_and(|file| file.len() > 20), "{file} is missing");
    }
}

/// Fields of `lab delivery` that must be 0.
const SOUND: [&str; 7] = [
    "lost_acknowledged",
    "duplicates",
    "order_violations",
    "gaps_silent",
    "unforced_gaps",
    "births_forced",
    "unanswered",
];

#[test]
fn messages_come_to_all_though_nodes_die() {
    for kill in ["root", "forwarder", "member", "random"] {
        let run = format!(
            "delivery --nodes 40 --topics 3 --subscribers 25 --minutes 0.6 --kill {kill} --settle 10"
        );
        let (figures, table) = figures(&format!("{run} --topology plane --json"));
        expect_fields(
            &figures,
            "published acknowledged expected delivered gaps_announced outcome_unknown named_ms_p99 full_again_ms_p99 \
             recovery_ms_p50 recovery_ms_p99 root_recovery_ms_p99 copies_per_delivery retransmitted \
             replica_copies_per_message forwarder_share control_bytes_per_delivered_byte receipts_ms_p50 \
             receipts_ms_p99 receipts_with_all_copies",
        );
        assert!(SOUND.iter().all(|field| figures[field] == 0), "{kill}: {figures}");
        assert_eq!(
            (figures["published"].as_u64(), figures["killed"].as_u64()),
            (Some(1080), Some(2)),
            "{figures}"
        );
        assert_eq!(figures["expected"], figures["delivered"], "{figures}");
        assert!(number(&figures, "delivered") > 24_000.0, "{figures}");
        assert!(table.contains("M10 pub"), "{table}");
    }
}

#[test]
fn most_nodes_die_at_once_and_what_is_lost_is_announced() {
    let run = "delivery --nodes 60 --topics 4 --minutes 0.5 --remove 60 --settle 10 --topology plane --json";
    let (figures, table) = figures(run);
    assert!(SOUND.iter().all(|field| figures[field] == 0), "{figures}");
    assert_eq!(figures["killed"], 36, "{figures}");
    assert!(
        number(&figures, "majority_removed") >= 1.0 && number(&figures, "births_owed") >= 1.0,
        "{figures}"
    );
    assert!(table.contains("M8 run"), "{table}");
}

#[test]
fn nearly_all_nodes_leave_at_once_and_nothing_is_lost() {
    let run = "delivery --mass-leave --nodes 16 --topics 4 --subscribers 10 --minutes 0.5 --settle 10 --topology constant:20";
    let (figures, _) = figures(&format!("{run} --json"));
    assert!(SOUND.iter().all(|field| figures[field] == 0), "{figures}");
    assert_eq!(
        (figures["left"].as_u64(), figures["gaps_announced"].as_u64()),
        (Some(14), Some(0)),
        "{figures}"
    );
}

#[test]
fn one_of_few_nodes_with_many_topics_dies() {
    let run = "bulk --topics 100 --rate 50 --settle 5 --topology constant:5 --json";
    let (figures, _) = figures(run);
    expect_fields(&figures, "rooted_ms_max named_ms_max full_again_ms_max receipts_meanwhile_ms_p99");
    assert!(number(&figures, "roots") > 5.0 && number(&figures, "rooted_ms_max") < 15_000.0, "{figures}");
}

#[test]
fn a_sweep_has_all_sessions_and_losses() {
    let dir = tempfile::tempdir().expect("a directory");
    let run =
        "churn --sweep --worlds 2 --nodes 6 --lookups 3 --warm 5 --settle 1 --topology constant:20 --json";
    let (figures, table) = figures(&format!("{run} --out {}", dir.path().display()));
    let runs = figures["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 18);
    assert!(runs.iter().all(|run| run["wrong"] == 0 && run["lookups"] == 3), "{figures}");
    assert!(table.contains("600 min, loss 5 %"), "{table}");
    let svg = std::fs::read_to_string(dir.path().join("churn.svg")).expect("a plot");
    assert!(svg.contains("loss 5 %"), "the legend names each loss");
}

#[test]
fn a_ring_is_one_again_after_faults() {
    let run = "faults --nodes 30 --only crash-30,isolation-30s,join-storm --settle 5 --topology plane --json";
    let (figures, table) = figures(run);
    expect_fields(&figures, "faults bound_s");
    let faults = figures["faults"].as_array().expect("faults");
    assert_eq!(faults.len(), 3);
    for fault in faults {
        assert!(number(fault, "lookups") > 20.0 && fault["held"] == true && fault["lost"] == 0, "{fault}");
        assert_eq!(fault["wrong"], fault["wrong_excused"], "{fault}");
        assert_eq!(fault["told"], fault["changed"], "{fault}");
    }
    assert!(number(&faults[0], "whole") < 0.5, "a node is cut off: {}", faults[0]);
    assert!(number(&faults[1], "recovered_s") > 1.0, "deaths are not found at once: {}", faults[1]);
    assert!(table.contains("join-storm"), "{table}");
}

#[test]
fn a_ring_that_takes_too_long_is_told_with_its_command() {
    let output = lab("faults --nodes 20 --only crash-30 --bound 1 --settle 5 --topology plane --seed 5");
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    for word in
        ["the bound is 1 s", "faults --nodes 20 --only crash-30 --seed 5 --profile default --topology plane"]
    {
        assert!(out.contains(word), "{word} is missing: {out}");
    }
}

#[test]
fn commands_that_make_no_sense_name_the_culprit() {
    for (arguments, culprit) in [
        ("", "Usage"),
        ("routing --topology ring", "`ring` is no topology"),
        ("routing --fail 100", "--fail"),
        ("routing --nodes 1", "--nodes"),
        ("routing --leaf-set 3", "leaf_set is 3: it must be even"),
        ("multicast --nodes 20 --groups 1 --members 21", "--members 21: the ring has only 20 nodes"),
        ("multicast --members 5", "--members needs --groups"),
        ("broadcast --setting m10", "m10"),
        ("churn --session-median 0", "--session-median"),
        ("churn --loss 91", "--loss"),
        ("churn --trace lognormal", "--trace"),
        ("churn --sweep --loss 5", "--loss"),
        ("delivery --kill root --remove 10", "--remove"),
        ("delivery --subscribers 50 --nodes 10", "--subscribers 50"),
        ("delivery --rate 0", "--rate"),
        ("faults --only earthquake", "earthquake"),
        ("routing --nodes 2 --out /proc/none", "--out /proc/none"),
    ] {
        let output = lab(arguments);
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "lab {arguments}: {err}");
        assert!(err.contains(culprit), "lab {arguments}: {culprit} is not named: {err}");
    }
}
