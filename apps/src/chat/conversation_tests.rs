//! Conversations as stories: what goes out, what is shown.

use treecast_scribe::message::{Gap, Mark, MessageId, Position};

use super::*;

const ME: NodeId = NodeId(1);
const ANN: NodeId = NodeId(2);
const BOB: NodeId = NodeId(3);
/// Own messages of earlier chats have this number at most.
const NUMBER: u64 = 1000;
const BEGINNING: Position = Position { birth: 1, offset: 1 };

fn at(seconds: u64) -> Now {
    Now { uptime: Duration::from_secs(seconds), clock: 0 }
}

/// A conversation in #lobby that has just come there: history is still on its way.
fn arriving() -> Conversation {
    let mut conversation = Conversation::new(ME, "me".into(), NUMBER);
    conversation.enter(at(0), "lobby");
    assert_eq!(sent(&mut conversation), [(EnvelopeKind::Join, String::new())]);
    conversation
}

/// A conversation in #lobby whose own arrival is sent and has come back.
fn lobby() -> Conversation {
    let mut lobby = arriving();
    arrive(&mut lobby);
    lobby
}

fn arrive(conversation: &mut Conversation) {
    let arrival = Envelope::new(EnvelopeKind::Join, "me", "", NUMBER + 1);
    conversation.on_item(at(0), item(ME, arrival.encode()));
}

fn sent(conversation: &mut Conversation) -> Vec<(EnvelopeKind, String)> {
    let mut all = Vec::new();
    while let Some(outgoing) = conversation.next_outgoing().cloned() {
        let envelope = Envelope::decode(&outgoing.payload).unwrap();
        assert_eq!(conversation.sent(), Some(envelope.n));
        all.push((envelope.kind, envelope.text));
    }
    all
}

fn item(publisher: NodeId, payload: impl Into<Bytes>) -> Item {
    let position = BEGINNING;
    Item::Message(Message {
        id: MessageId { publisher, session: 1, sequence: 1 },
        position,
        mark: Mark { birth: 1, next: 2 },
        payload: payload.into(),
    })
}

fn hear(conversation: &mut Conversation, now: Now, from: NodeId, kind: EnvelopeKind, nick: &str, text: &str) {
    conversation.on_item(now, item(from, Envelope::new(kind, nick, text, 1).encode()));
}

fn receipt(listeners: u64) -> Result<Receipt, PublishError> {
    let id = MessageId { publisher: ME, session: 1, sequence: 1 };
    Ok(Receipt { id, position: BEGINNING, copies: 1, listeners })
}

fn unknown() -> Result<Receipt, PublishError> {
    Err(PublishError::OutcomeUnknown { id: MessageId { publisher: ME, session: 1, sequence: 1 } })
}

fn shown(conversation: &Conversation) -> Vec<String> {
    let text = |entry: &Entry| match &entry.body {
        Body::Said { name, text, .. } if entry.is_earlier() => format!("({name}: {text})"),
        Body::Said { name, text, action, delivery, .. } => {
            let mark = match delivery {
                None => String::new(),
                Some(Delivery::Pending) => " …".to_string(),
                Some(Delivery::Delivered { others }) => format!(" ✓{others}"),
                Some(Delivery::Failed(why)) => format!(" ✗{why}"),
            };
            let colon = if *action { "" } else { ":" };
            format!("{name}{colon} {text}{mark}")
        }
        Body::Notice(text) => format!("· {text}"),
        Body::Warning(text) => format!("! {text}"),
        Body::Reply(text) => format!("> {text}"),
        Body::Divider(text) => format!("-- {text}"),
    };
    conversation.entries().map(text).collect()
}

#[test]
fn own_words_stand_last_until_they_come_back_in_their_place() {
    let mut lobby = lobby();
    lobby.on_typed(at(1), Typed::Say("mine".into()));
    let outgoing = lobby.next_outgoing().cloned().unwrap();
    lobby.sent();
    hear(&mut lobby, at(1), ANN, EnvelopeKind::Say, "ann", "hers");
    assert_eq!(shown(&lobby)[1..], ["ann: hers", "me: mine …"]);
    lobby.on_item(at(1), item(ME, outgoing.payload));
    hear(&mut lobby, at(1), ANN, EnvelopeKind::Say, "ann", "more");
    lobby.on_receipt(at(1), outgoing.n, &receipt(3));
    assert_eq!(shown(&lobby)[1..], ["ann: hers", "me: mine ✓2", "ann: more"]);
    assert!(lobby.is_settled());
}

#[test]
fn a_receipt_before_the_words_come_back_is_shown_at_once() {
    let mut lobby = lobby();
    lobby.on_typed(at(1), Typed::Me("waves".into()));
    let n = lobby.next_outgoing().unwrap().n;
    assert_eq!(sent(&mut lobby), [(EnvelopeKind::Me, "waves".into())]);
    lobby.on_receipt(at(1), n, &receipt(1));
    assert_eq!(shown(&lobby)[1..], ["me waves ✓0"]);
    assert!(!lobby.is_settled());
    // They never come back: a gap took them.
    lobby.on_tick(at(3));
    assert!(!lobby.is_settled());
    lobby.on_tick(at(6));
    assert!(lobby.is_settled());
}

#[test]
fn an_unknown_outcome_is_shown_at_the_words_and_counted() {
    let mut lobby = lobby();
    lobby.on_typed(at(1), Typed::Say("lost?".into()));
    let n = lobby.next_outgoing().unwrap().n;
    sent(&mut lobby);
    lobby.on_receipt(at(9), n, &unknown());
    assert_eq!(shown(&lobby)[1..], ["me: lost? ✗outcome unknown"]);
    assert_eq!((lobby.failures(), lobby.is_settled()), (1, true));
}

#[test]
fn the_fate_of_presence_is_nobodys_concern() {
    let mut lobby = lobby();
    lobby.on_receipt(at(1), NUMBER + 1, &unknown());
    assert_eq!(lobby.failures(), 0);
}

#[test]
fn comers_are_answered_once_after_a_while_however_many_come() {
    let mut lobby = lobby();
    for id in 10..20 {
        hear(&mut lobby, at(10), NodeId(id), EnvelopeKind::Join, &format!("n{id}"), "");
    }
    assert_eq!(sent(&mut lobby), []);
    lobby.on_tick(at(12));
    assert_eq!(sent(&mut lobby), [(EnvelopeKind::Here, String::new())]);
    hear(&mut lobby, at(12), ANN, EnvelopeKind::Join, "ann", "");
    lobby.on_tick(at(13));
    assert_eq!(sent(&mut lobby), [], "signs of life keep their distance");
    lobby.on_tick(at(15));
    assert_eq!(sent(&mut lobby), [(EnvelopeKind::Here, String::new())]);
}

#[test]
fn signs_of_life_go_out_and_the_silent_are_gone() {
    let mut lobby = lobby();
    hear(&mut lobby, at(1), ANN, EnvelopeKind::Here, "ann", "");
    lobby.on_tick(at(30));
    assert_eq!(sent(&mut lobby), [(EnvelopeKind::Here, String::new())]);
    lobby.on_tick(at(91));
    assert_eq!(lobby.others(), [(ANN, "ann".into())]);
    lobby.on_tick(at(92));
    assert_eq!(lobby.others(), []);
    assert_eq!(shown(&lobby).last().unwrap(), "· ann is gone, without a word");
}

#[test]
fn after_a_look_around_it_is_known_who_is_here() {
    let mut alone = lobby();
    alone.on_tick(at(4));
    assert_eq!(shown(&alone)[1..], ["· nobody else is here yet"]);
    let mut lobby = lobby();
    hear(&mut lobby, at(1), BOB, EnvelopeKind::Here, "bob", "");
    hear(&mut lobby, at(1), ANN, EnvelopeKind::Here, "ann", "");
    lobby.on_tick(at(4));
    lobby.on_tick(at(5));
    hear(&mut lobby, at(5), NodeId(4), EnvelopeKind::Here, "eve", "");
    assert_eq!(shown(&lobby)[1..], ["· here: ann, bob", "· eve is here"]);
}

#[test]
fn coming_renaming_and_going_are_told_once() {
    let mut lobby = lobby();
    hear(&mut lobby, at(1), ANN, EnvelopeKind::Join, "ann", "");
    hear(&mut lobby, at(1), ANN, EnvelopeKind::Join, "ann", "");
    hear(&mut lobby, at(2), ANN, EnvelopeKind::Nick, "anna", "ann");
    hear(&mut lobby, at(3), ANN, EnvelopeKind::Say, "anna", "hi");
    hear(&mut lobby, at(4), ANN, EnvelopeKind::Leave, "anna", "");
    hear(&mut lobby, at(4), ANN, EnvelopeKind::Leave, "anna", "");
    assert_eq!(shown(&lobby)[1..], ["· ann joined", "· ann is anna now", "anna: hi", "· anna left"]);
}

#[test]
fn two_of_one_name_are_told_apart() {
    let mut lobby = lobby();
    hear(&mut lobby, at(1), ANN, EnvelopeKind::Here, "ann", "");
    hear(&mut lobby, at(1), BOB, EnvelopeKind::Say, "ann", "I am ann");
    hear(&mut lobby, at(1), NodeId(0xabcd << 112), EnvelopeKind::Say, "me", "I am you");
    let said = shown(&lobby);
    assert_eq!(said[1..], ["ann·0000: I am ann", "me·abcd: I am you"]);
}

#[test]
fn what_others_send_cannot_reach_the_terminal_raw() {
    let mut lobby = lobby();
    hear(&mut lobby, at(1), ANN, EnvelopeKind::Say, "a\x1b[2Jnn", "\x1b]0;owned\x07\u{202e}x");
    lobby.on_item(at(1), item(BOB, "plain\r\n\x1b[31m"));
    lobby.on_item(at(1), item(BOB, vec![0xff, 0x1b]));
    hear(&mut lobby, at(1), BOB, EnvelopeKind::Unknown, "bob", "");
    assert_eq!(
        shown(&lobby)[1..],
        [
            "a␛[2Jnn: ␛]0;owned␇�x",
            "00000000: plain␍␊␛[31m",
            "· 00000000 sent 2 bytes that are no text",
            "! bob uses a newer chat: not all of what it says can be shown here",
        ]
    );
}

#[test]
fn gaps_are_told() {
    let mut lobby = lobby();
    lobby.on_item(at(1), Item::Gap(Gap { after: None, until: BEGINNING, reason: GapReason::Unreplicated }));
    let told = "! messages may be missing here: most of the nodes that kept this room are gone";
    assert_eq!(shown(&lobby)[1..], [told]);
}

#[test]
fn commands_without_a_room_or_against_the_limits_are_answered() {
    let mut lobby = lobby();
    assert_eq!(lobby.on_typed(at(1), Typed::Join("rust".into())), Effect::Enter("rust".into()));
    assert_eq!(lobby.on_typed(at(1), Typed::Join("lobby".into())), Effect::None);
    assert_eq!(lobby.on_typed(at(1), Typed::Leave), Effect::Leave);
    assert_eq!(lobby.on_typed(at(1), Typed::Quit), Effect::Quit);
    lobby.on_typed(at(1), Typed::Nick("a b".into()));
    lobby.on_typed(at(1), Typed::Say("x".repeat(MAX_TEXT + 1)));
    lobby.on_typed(at(1), Typed::Names);
    assert!(lobby.leave().is_some());
    lobby.on_typed(at(1), Typed::Say("anybody?".into()));
    assert_eq!(
        shown(&lobby)[1..],
        [
            "> you are in #lobby already",
            "> a nick has no spaces",
            "> not sent: the message has 4097 bytes, at most 4096 are allowed",
            "> in #lobby: you alone",
            "> you are in no room: /join ROOM",
        ]
    );
    assert!(lobby.leave().is_none());
}

#[test]
fn so_many_own_words_may_wait_and_not_one_more() {
    let mut lobby = lobby();
    for _ in 0..MAX_PENDING {
        assert!(lobby.has_room());
        lobby.on_typed(at(1), Typed::Say("x".into()));
    }
    assert!(!lobby.has_room());
    lobby.on_typed(at(1), Typed::Say("y".into()));
    assert_eq!(lobby.failures(), 1);
    assert_eq!(sent(&mut lobby).len(), MAX_PENDING);
}

#[test]
fn words_that_were_not_sent_when_the_room_was_left_are_said_to_be_lost() {
    let mut lobby = lobby();
    lobby.on_typed(at(1), Typed::Say("too late".into()));
    lobby.leave();
    assert_eq!(shown(&lobby)[1..], ["me: too late ✗not sent: the room was left"]);
    assert!(lobby.is_settled());
}

#[test]
fn the_log_is_bounded_and_read_on_from_where_one_was() {
    let mut lobby = lobby();
    let (first, seen) = lobby.since(0);
    assert_eq!(first.len(), 1);
    for n in 0..MAX_LOG + 10 {
        hear(&mut lobby, at(1), ANN, EnvelopeKind::Say, "ann", &n.to_string());
    }
    assert_eq!(lobby.entries().count(), MAX_LOG);
    let (new, seen) = lobby.since(seen);
    assert_eq!(new.len(), MAX_LOG, "what scrolled away meanwhile is gone");
    assert_eq!(lobby.since(seen).0, []);
}

#[test]
fn what_was_said_before_one_came_is_shown_once_all_of_it_is_there() {
    let mut lobby = arriving();
    hear(&mut lobby, at(0), ANN, EnvelopeKind::Join, "ann", "");
    hear(&mut lobby, at(0), ANN, EnvelopeKind::Say, "ann", "hello?");
    lobby.on_item(at(0), item(ME, Envelope::new(EnvelopeKind::Say, "oldme", "mine", NUMBER).encode()));
    hear(&mut lobby, at(0), ANN, EnvelopeKind::Leave, "ann", "");
    lobby.on_item(at(0), item(BOB, "by pub\x1b[2J"));
    assert_eq!(shown(&lobby).len(), 1, "it is told at once, between its dividers");
    arrive(&mut lobby);
    hear(&mut lobby, at(1), ANN, EnvelopeKind::Say, "ann", "hi");
    assert_eq!(
        shown(&lobby)[1..],
        [
            "-- earlier",
            "(ann: hello?)",
            "(oldme: mine)",
            "(00000000: by pub\u{241b}[2J)",
            "-- now",
            "ann: hi"
        ]
    );
    assert_eq!(lobby.others(), [(ANN, "ann".into())], "who was there is not there for that");
}

#[test]
fn history_is_the_last_lines_and_nothing_where_there_are_none() {
    assert_eq!(shown(&lobby()).len(), 1);
    let mut lobby = arriving();
    for n in 0..HISTORY_LINES + 5 {
        hear(&mut lobby, at(0), ANN, EnvelopeKind::Here, "ann", "");
        hear(&mut lobby, at(0), ANN, EnvelopeKind::Say, "ann", &n.to_string());
    }
    arrive(&mut lobby);
    let shown = shown(&lobby);
    assert_eq!((shown.len(), shown[2].as_str()), (1 + 2 + HISTORY_LINES, "(ann: 5)"));
}

#[test]
fn history_ends_also_if_the_own_arrival_never_comes_back() {
    let mut refused = arriving();
    hear(&mut refused, at(0), ANN, EnvelopeKind::Say, "ann", "old");
    refused.on_receipt(at(1), NUMBER + 1, &unknown());
    assert_eq!(shown(&refused)[1..], ["-- earlier", "(ann: old)", "-- now"]);
    assert_eq!(refused.failures(), 0);
    let mut lost = arriving();
    hear(&mut lost, at(0), ANN, EnvelopeKind::Say, "ann", "old");
    lost.on_tick(at(4));
    assert_eq!(shown(&lost)[1..4], ["-- earlier", "(ann: old)", "-- now"]);
    let mut overtaken = arriving();
    overtaken.on_typed(at(0), Typed::Say("mine".into()));
    let own = overtaken.next_outgoing().cloned().unwrap();
    hear(&mut overtaken, at(0), ANN, EnvelopeKind::Say, "ann", "old");
    overtaken.on_item(at(1), item(ME, own.payload));
    assert_eq!(shown(&overtaken)[1..], ["-- earlier", "(ann: old)", "-- now", "me: mine …"]);
}
