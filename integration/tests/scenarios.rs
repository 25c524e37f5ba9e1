//! The scenarios that ship come out as they say, and files that make no sense are refused by file, line and key.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use treecast_integration::lab::{Error, Progress, scenario};
use treecast_integration::report::Report;
use treecast_integration::timeline::DONE;

fn play(path: &Path, text: &str) -> Result<Report, Error> {
    scenario::play(path, text, &Progress::hidden())
}

fn shipped() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_shipped_scenarios_come_out_as_they_say() {
    let files = shipped();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let report = play(&file, &std::fs::read_to_string(&file).unwrap()).unwrap();
        eprintln!("{}", report.to_text());
        assert!(report.faults.is_empty(), "{}: {:#?}", file.display(), report.faults);
    }
}

#[test]
fn an_expectation_that_fails_is_a_fault() {
    let text =
        std::fs::read_to_string(shipped().iter().find(|file| file.ends_with("late-joiner.toml")).unwrap());
    let text =
        text.unwrap().replace("gaps = [0, 0]", "gaps = [7, 9]").replace("slowest = 5", "slowest = 0.001");
    let faults = play(Path::new("spoiled.toml"), &text).unwrap().faults;
    assert!(faults[0].starts_with("expect.gaps: 0, expected were 7 to 9"), "{faults:?}");
    assert!(faults[1].starts_with("expect.slowest"), "{faults:?}");
}

/// A node that cannot reach any of the others is no fault of the ring, whoever cut it off; and what the timeline does has
/// happened.
#[test]
fn pairs_that_are_cut_one_by_one_may_leave_a_side_of_its_own() {
    let cuts = (1..5).map(|with| format!("[[events]]\nat = 5\ndo = \"part\"\nnode = 0\nwith = {with}\n"));
    let deeds =
        ["crash\"\nnode = 2", "restart\"\nnode = 2", "heal\"", "pause\"\nnode = 1", "resume\"\nnode = 1"];
    let later = deeds.iter().zip([22, 30, 40, 45, 47]);
    let later = later.map(|(deed, at)| format!("[[events]]\nat = {at}\ndo = \"{deed}\n"));
    let text = format!(
        "about = \"\"\nnodes = 5\nlasts = 60\n{}[expect]\nevents = [\"cut between two\", \"crash of a process\", \
         \"restart\", \"pause\", \"merge\", \"demotion\"]\n",
        cuts.chain(later).collect::<String>()
    );
    let faults = play(Path::new("cut.toml"), &text).unwrap().faults;
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Every deed of the swarm can stand in a file, and ends after a while if the file says so.
#[test]
fn every_deed_of_the_swarm_can_be_written_down() {
    let events = [
        (1, "subscribe", "node = 9\ntopic = \"a\""),
        (1, "stall", "node = 10\ntopic = \"a\""),
        (2, "burst", "node = 1\ntopic = \"a\"\ncount = 20"),
        (3, "slow", "node = 2\nper_frame = 0.005\nlasts = 5"),
        (4, "drift", "lasts = 10"),
        (5, "throttle", "node = 4\nbytes_per_second = 50000\nlasts = 5"),
        (6, "jump-clock", "node = 15\nby = 20"),
        (7, "part", "node = 0\nwith = 8\nlasts = 3"),
        (8, "deafen", "node = 1\nwith = 9\nlasts = 3"),
        (9, "part-neighbours", "node = 5\nlasts = 2"),
        (10, "pairs", "share = 0.023\nlasts = 3"),
        (14, "blink", "node = 15"),
        (20, "part-many", "nodes = [11, 15]\nlasts = 15"),
        (45, "pause", "node = 7\nlasts = 3"),
        (50, "crash", "node = 12"),
        (55, "power-failure", "node = 13"),
        (60, "restart", "node = 12"),
        (62, "join", ""),
        (63, "join-edge", ""),
        (64, "leave", "node = 14"),
        (66, "unsubscribe", "node = 9\ntopic = \"a\""),
        (68, "unstall", "node = 10"),
        (70, "crash-root", "topic = \"a\""),
        (72, "weather", "lasts = 4\nweather = { loss = 0.02 }"),
    ];
    let event =
        |(at, deed, keys): &(u32, &str, &str)| format!("[[events]]\nat = {at}\ndo = \"{deed}\"\n{keys}\n");
    let events: String = events.iter().map(event).collect();
    let names: Vec<String> = DONE.iter().map(|name| format!("\"{name}\"")).collect();
    let text = format!(
        "about = \"\"\nnodes = 16\nlasts = 90\n{events}[[subscribers]]\ntopic = \"a\"\nnodes = [0, 8]\n[expect]\n\
         whole_within = 40\nsettled_within = 60\nevents = [{}]\n",
        names.join(", ")
    );
    let faults = play(Path::new("all.toml"), &text).unwrap().faults;
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Where nothing happens, nothing of what is rare does.
#[test]
fn a_quiet_ring_demotes_nobody() {
    let text = "about = \"\"\nnodes = 12\nlasts = 30\n[expect]\nevents = [\"demotion\"]\n";
    let faults = play(Path::new("quiet.toml"), text).unwrap().faults;
    assert_eq!(faults, ["expect.events: not one demotion"]);
}

/// The refusal of a scenario whose body is this.
fn refusal(body: &str) -> String {
    play(Path::new("wrong.toml"), &format!("about = \"\"\n{body}")).unwrap_err().to_string()
}

#[test]
fn what_makes_no_sense_is_refused_by_file_line_and_key() {
    let event = |text: &str| refusal(&format!("nodes = 3\nlasts = 9\n[[events]]\n{text}"));
    let cases = [
        (refusal("nodes = 1\nlasts = 9"), "wrong.toml:2: nodes: from 2"),
        (refusal("nodes = 3\nlasts = -1"), "wrong.toml:3: lasts: -1 is no time"),
        (refusal("nodes = 3\nlasts = 9\nnods = 4"), "wrong.toml:4: the file: unknown field `nods`"),
        (refusal("nodes = 3\nlasts = 9\ntopology = \"torus\""), "wrong.toml:4: topology: "),
        (refusal("nodes = 3\nlasts = 9\n[weather]\nloss = 7"), "wrong.toml:5: weather.loss: 7 is no share"),
        (event("at = 1\ndo = \"explode\"\nnode = 1"), "wrong.toml:6: the file: unknown variant `explode`"),
        (event("at = 1\ndo = \"crash\""), "wrong.toml:6: events.do: it needs a `node`"),
        (event("at = 1\ndo = \"crash\"\nnode = 8"), "wrong.toml:7: events.node: there is no node 8"),
        (event("at = 1\ndo = \"crash\"\nnode = \"king\""), "wrong.toml:7: events.node: `king` is no place"),
        (event("at = 1\ndo = \"part\"\nnode = 1"), "wrong.toml:6: events.do: it needs a `with`"),
        (
            refusal("nodes = 3\nlasts = 9\n[expect]\nevents = [\"rain\"]"),
            "wrong.toml:5: expect.events: a scenario has no event",
        ),
    ];
    for (said, expected) in cases {
        assert!(said.starts_with(expected), "{said}\nin place of\n{expected}");
    }
}
