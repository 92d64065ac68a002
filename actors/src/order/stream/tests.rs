#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::order::command::{Create, Item};

const NOW: Timestamp = Timestamp::EPOCH;

fn create() -> Command {
    let item = Item { sku: "A-1".to_owned(), quantity: 1, unit_price: 100 };
    Command::Create(Create {
        customer_id: "c-1".to_owned(),
        email: None,
        reference: None,
        currency: "EUR".to_owned(),
        items: vec![item],
    })
}

fn add_item() -> Command {
    Command::AddItem(Item { sku: "A-1".to_owned(), quantity: 1, unit_price: 100 })
}

fn key(key: &str, command: &Command) -> Option<Key> {
    Some(Key { hash: KeyHash::of(key), fingerprint: Fingerprint::of(command) })
}

fn origin() -> Origin {
    Origin::anonymous("c".to_owned(), None)
}

fn ask(
    draft: &mut Draft,
    stream: &Stream,
    command: &Command,
    key: Option<Key>,
    if_match: Option<&[Version]>,
) -> Verdict {
    let origin = origin();
    draft.judge(stream, Question { command, key, if_match, origin: &origin }, Rules::ORDER)
}

fn accept(verdict: Verdict) -> Arc<Order> {
    let Verdict::Accepted(order) = verdict else { panic!("not accepted: {verdict:?}") };
    order
}

fn refusal(verdict: Verdict) -> CommandError {
    let Verdict::Refused(error) = verdict else { panic!("not refused: {verdict:?}") };
    error
}

/// A stream after `commands`, one commit each.
fn stream_of(commands: &[(Command, Option<Key>)]) -> (Stream, Vec<Commit>) {
    let mut stream = Stream::nothing(OrderId::generate());
    let mut commits = Vec::new();
    for (command, key) in commands {
        let mut draft = Draft::new(&stream, NOW);
        accept(ask(&mut draft, &stream, command, *key, None));
        let commit = draft.commit(&stream).unwrap().unwrap();
        stream.adopt(draft, &commit);
        commits.push(commit);
    }
    (stream, commits)
}

#[test]
fn what_is_read_again_is_what_was_adopted() {
    let (stream, commits) = stream_of(&[(create(), key("k", &create())), (add_item(), None)]);
    let mut read = Stream::nothing(stream.end().order());
    for commit in &commits {
        read.extend(&Commit::decode(commit.encoded()).unwrap(), Rules::ORDER).unwrap();
    }
    let snapshot = stream.to_snapshot().unwrap();
    let restored = Stream::from_snapshot(&snapshot).unwrap();
    for other in [&read, &restored] {
        assert_eq!(other.order(), stream.order());
        assert_eq!(other.end(), stream.end());
        assert_eq!(other.commands, stream.commands);
        assert_eq!(other.keys, stream.keys);
    }
}

#[test]
fn a_key_answers_before_if_match_and_before_the_status() {
    let (stream, _) = stream_of(&[(create(), key("k", &create())), (add_item(), key("a", &add_item()))]);
    let mut draft = Draft::new(&stream, NOW);
    // Version 1 was right the first time and is wrong now; adding is decided no second time.
    let verdict = ask(&mut draft, &stream, &add_item(), key("a", &add_item()), Some(&[Version(1)]));
    assert!(matches!(&verdict, Verdict::Replayed(order) if order.version == Version(2)), "{verdict:?}");
    let verdict = ask(&mut draft, &stream, &create(), key("k", &create()), None);
    assert!(matches!(verdict, Verdict::ReplayedAt(Version(1))), "{verdict:?}");
    let other = Command::Deliver;
    let verdict = ask(&mut draft, &stream, &other, key("a", &other), Some(&[Version(1)]));
    assert_eq!(refusal(verdict), CommandError::KeyReused);
    assert!(draft.commit(&stream).unwrap().is_none());
}

#[test]
fn if_match_answers_before_the_status() {
    let (stream, _) = stream_of(&[(create(), None)]);
    let mut draft = Draft::new(&stream, NOW);
    let verdict = ask(&mut draft, &stream, &Command::Deliver, None, Some(&[Version(7)]));
    assert_eq!(refusal(verdict), CommandError::VersionMismatch { current: Version(1) });
    let verdict = ask(&mut draft, &stream, &Command::Deliver, None, Some(&[Version(7), Version(1)]));
    assert!(matches!(refusal(verdict), CommandError::Refused(Refusal::NotAllowed { .. })));
    accept(ask(&mut draft, &stream, &add_item(), None, Some(&[])));
}

#[test]
fn commands_that_wait_together_become_one_commit_each_on_the_state_before_it() {
    let stream = Stream::nothing(OrderId::generate());
    let mut draft = Draft::new(&stream, NOW);
    let created = accept(ask(&mut draft, &stream, &create(), key("k", &create()), None));
    let again = ask(&mut draft, &stream, &create(), key("k", &create()), None);
    assert!(matches!(&again, Verdict::Replayed(order) if *order == created), "{again:?}");
    let added = accept(ask(&mut draft, &stream, &add_item(), None, Some(&[Version(1)])));
    assert_eq!((created.version, added.version), (Version(1), Version(2)));
    let verdict = ask(&mut draft, &stream, &add_item(), None, Some(&[Version(1)]));
    assert_eq!(refusal(verdict), CommandError::VersionMismatch { current: Version(2) });
    let commit = draft.commit(&stream).unwrap().unwrap();
    assert_eq!((commit.first(), commit.last()), (Version(1), Version(2)));
}

#[test]
fn time_never_goes_back_within_an_order() {
    let mut stream = Stream::nothing(OrderId::generate());
    let late = Timestamp::from_millis(1_000_000);
    let mut draft = Draft::new(&stream, late);
    accept(ask(&mut draft, &stream, &create(), None, None));
    let commit = draft.commit(&stream).unwrap().unwrap();
    stream.adopt(draft, &commit);
    let mut draft = Draft::new(&stream, NOW);
    let order = accept(ask(&mut draft, &stream, &add_item(), None, None));
    assert_eq!(order.updated_at, late);
}

#[test]
fn the_last_commands_are_kept_for_finishing() {
    let (mut stream, _) = stream_of(&[(create(), None)]);
    stream.commands = COMMANDS_MAX - COMMANDS_KEPT_TO_FINISH;
    let mut draft = Draft::new(&stream, NOW);
    assert_eq!(refusal(ask(&mut draft, &stream, &add_item(), None, None)), Refusal::OrderFull.into());
    let pay = Command::Pay { amount: 100, reference: "p".to_owned() };
    accept(ask(&mut draft, &stream, &pay, None, None));
    stream.commands = COMMANDS_MAX;
    let mut draft = Draft::new(&stream, NOW);
    assert_eq!(refusal(ask(&mut draft, &stream, &pay, None, None)), Refusal::OrderFull.into());
}

#[test]
fn a_commit_that_does_not_follow_is_poisonous() {
    let (stream, commits) = stream_of(&[(create(), None), (add_item(), None)]);
    let mut read = Stream::nothing(stream.end().order());
    assert!(matches!(read.extend(&commits[1], Rules::ORDER), Err(Unreadable::Poisonous { .. })));
}

#[test]
fn a_snapshot_of_another_shape_is_ignored() {
    let (stream, _) = stream_of(&[(create(), None)]);
    let good = stream.to_snapshot().unwrap();
    let other_schema = Snapshot { schema: STATE_SCHEMA + 1, ..good.clone() };
    let damaged = Snapshot { state: "{}".to_owned(), ..good.clone() };
    let other_end = Snapshot { end: StreamEnd::nothing(stream.end().order()), ..good };
    for snapshot in [other_schema, damaged, other_end] {
        assert!(Stream::from_snapshot(&snapshot).is_none());
    }
}
