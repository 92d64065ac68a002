//! A file as docket 0.1 left it before lanes kept how they failed: brought up to date in place, whole or not at all.

use std::path::Path;
use std::sync::Arc;

use actors::clock::Timestamp;
use actors::commit::Origin;
use actors::event::EventId;
use actors::inbox::{
    Attempt, Committed, DocumentKey, Failure, FailureKind, Generation, Hold, HoldState, Inbox, InboxError, Lane,
    LaneCounts, Outcome, OutcomeKind, Row, RowWrite, Totals, Transaction, TransactionId, Which, Work,
};
use actors::order::{OrderId, Version};
use docket::sqlite::DataDirectory;
use docket::sqlite::inbox::SqliteInbox;
use rusqlite::{Connection, params};
use uuid::Uuid;

const FIRST_SHAPE: &str = "
CREATE TABLE subscriber (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  name TEXT NOT NULL,
  term INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  paused INTEGER NOT NULL,
  position TEXT,
  scanning INTEGER NOT NULL,
  scan_after TEXT
) STRICT;
CREATE TABLE inbox (
  generation INTEGER NOT NULL,
  order_id BLOB NOT NULL,
  applied INTEGER NOT NULL,
  applied_event BLOB,
  seen INTEGER NOT NULL,
  performed INTEGER NOT NULL,
  effects_waiting INTEGER NOT NULL,
  hold_state TEXT,
  hold_attempts INTEGER,
  hold_next_attempt_at INTEGER,
  hold_failure_kind TEXT,
  hold_failure TEXT,
  performing_state TEXT,
  performing_attempts INTEGER,
  performing_next_attempt_at INTEGER,
  performing_failure_kind TEXT,
  performing_failure TEXT,
  written_by BLOB NOT NULL,
  PRIMARY KEY (generation, order_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX inbox_held ON inbox (generation, hold_next_attempt_at) WHERE hold_state IS NOT NULL;
CREATE INDEX inbox_performing_held ON inbox (generation, performing_next_attempt_at)
  WHERE performing_state IS NOT NULL;
CREATE TABLE documents (
  generation INTEGER NOT NULL,
  collection TEXT NOT NULL,
  id TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (generation, collection, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE effects (
  order_id BLOB NOT NULL,
  version INTEGER NOT NULL,
  position INTEGER NOT NULL,
  event_id BLOB NOT NULL,
  last_of_event INTEGER NOT NULL,
  recorded_at INTEGER NOT NULL,
  origin TEXT NOT NULL,
  body TEXT NOT NULL,
  outcome TEXT,
  outcome_detail TEXT,
  outcome_at INTEGER,
  PRIMARY KEY (order_id, version, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX effects_waiting ON effects (order_id) WHERE outcome IS NULL;
PRAGMA user_version = 1;
";
const GENERATION: Generation = Generation(2);
/// When a row was written: the time in its id.
const WRITTEN_AT: i64 = 1_794_000_000_000;

fn written_by() -> TransactionId {
    let since_1970 = std::time::Duration::from_millis(u64::try_from(WRITTEN_AT).expect("after 1970"));
    let at = uuid::Timestamp::from_unix(uuid::NoContext, since_1970.as_secs(), since_1970.subsec_nanos());
    TransactionId(Uuid::new_v7(at))
}

fn held(state: HoldState, attempts: u32, next_attempt_at: Option<i64>, failure: Option<(FailureKind, &str)>) -> Hold {
    let written_at = Timestamp::from_millis(WRITTEN_AT);
    let mut hold = Hold::new(state, written_at, next_attempt_at.map(Timestamp::from_millis));
    hold.attempts = attempts;
    if let Some((kind, text)) = failure {
        hold.keep(Attempt { at: written_at, failure: Failure { kind, text: text.to_owned().into(), place: None } });
    }
    hold
}

/// Rows in every state that there was, with and without all that was kept of it.
fn rows() -> Vec<Row> {
    let lanes = [
        (None, None),
        (Some(held(HoldState::Retrying, 3, Some(9), Some((FailureKind::Transient, "it's \"so\"\0")))), None),
        (Some(held(HoldState::Gap, 0, Some(7), None)), Some(held(HoldState::Dead, 5, None, None))),
        (None, Some(held(HoldState::Retrying, 1, Some(8), Some((FailureKind::DependencyDown, ""))))),
        (Some(held(HoldState::Undecodable, 0, None, Some((FailureKind::Permanent, "ü")))), None),
        (Some(held(HoldState::Conflicting, 0, None, None)), None),
    ];
    let lane = |hold: Option<Hold>| hold.map_or(Lane::Ready, |hold| Lane::Held(Box::new(hold)));
    let row = |(applying, performing): (Option<Hold>, Option<Hold>)| Row {
        applied: Version(2),
        applied_event: applying.is_some().then(EventId::generate),
        seen: Version(if applying.is_some() { 5 } else { 2 }),
        performed: Version(1),
        effects_waiting: 1,
        applying: lane(applying),
        performing: lane(performing),
        written_by: Some(written_by()),
        ..Row::new(OrderId::generate())
    };
    lanes.into_iter().map(row).collect()
}

fn blob(uuid: Uuid) -> Vec<u8> {
    uuid.as_bytes().to_vec()
}

fn made(path: &Path, rows: &[Row]) -> Connection {
    let file = Connection::open(path).expect("a file");
    file.pragma_update(None, "journal_mode", "WAL").expect("a write-ahead log");
    file.execute_batch(FIRST_SHAPE).expect("tables");
    let subscriber = "INSERT INTO subscriber VALUES (1, 'test', 7, ?1, 1, NULL, 0, NULL)";
    file.execute(subscriber, [GENERATION.0]).expect("a subscriber");
    for row in rows {
        put(&file, row);
    }
    file
}

/// As the docket of that time did.
fn put(file: &Connection, row: &Row) {
    let order = blob(row.order.as_uuid());
    let columns = |lane: &Lane| {
        let hold = lane.hold().cloned();
        let failure = hold.as_ref().and_then(|hold| hold.failure().cloned());
        (
            hold.as_ref().map(|hold| hold.state.name()),
            hold.as_ref().map(|hold| hold.attempts),
            hold.and_then(|hold| hold.next_attempt_at).map(Timestamp::as_millis),
            failure.as_ref().map(|failure| failure.kind.name()),
            failure.map(|failure| failure.text.into_owned()),
        )
    };
    let (applying, performing) = (columns(&row.applying), columns(&row.performing));
    let insert = "INSERT INTO inbox VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18)";
    let values = params![
        GENERATION.0,
        order,
        row.applied.0,
        row.applied_event.map(|event| blob(event.0)),
        row.seen.0,
        row.performed.0,
        row.effects_waiting,
        applying.0,
        applying.1,
        applying.2,
        applying.3,
        applying.4,
        performing.0,
        performing.1,
        performing.2,
        performing.3,
        performing.4,
        row.written_by.map(|id| blob(id.0)),
    ];
    file.execute(insert, values).expect("a row");
    file.execute(
        "INSERT INTO documents VALUES (?1, 'orders', ?2, ?3)",
        params![GENERATION.0, row.order.to_string(), r#"{"a": 1}"#],
    )
    .expect("a document");
    let origin = serde_json::to_string(&Origin::anonymous("c".to_owned(), None)).expect("JSON");
    for (position, outcome) in [(0, Some("performed")), (1, None)] {
        let insert = "INSERT INTO effects VALUES (?1, 2, ?2, ?3, 1, 5, ?4, '{}', ?5, ?6, ?7)";
        let (detail, at) = (outcome.map(|_| "so"), outcome.map(|_| 6));
        let values = params![order, position, blob(Uuid::nil()), origin, outcome, detail, at];
        file.execute(insert, values).expect("an effect");
    }
}

fn shape(path: &Path) -> i64 {
    let file = Connection::open(path).expect("a file");
    file.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a shape")
}

/// Everything that makes the shape of a file, but the order in which it was made.
fn tables(path: &Path) -> Vec<String> {
    let file = Connection::open(path).expect("a file");
    let read = |sql: &str| {
        let mut select = file.prepare(sql).expect("a statement");
        let texts = select.query_map([], |row| row.get::<_, String>(0)).expect("an answer");
        texts.map(|text| text.expect("a text")).collect::<Vec<_>>()
    };
    // Columns that were added to a table stand elsewhere in its text.
    let columns = "SELECT name || ' ' || type || ' ' || \"notnull\" || ' ' || pk FROM pragma_table_info('subscriber')";
    let others = "SELECT replace(sql, '\"inbox\"', 'inbox') FROM sqlite_schema
                  WHERE sql IS NOT NULL AND name <> 'subscriber' ORDER BY name";
    [read(columns), read(others)].concat()
}

#[tokio::test]
async fn a_file_of_an_earlier_shape_is_brought_up_to_date_in_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = DataDirectory::lock(folder.path()).expect("a data folder");
    let before = rows();
    drop(made(&directory.file("test.db"), &before));
    let inbox = SqliteInbox::open(&directory, "test").expect("an inbox");
    let begun = inbox.begin().await.expect("begun");
    assert_eq!((begun.term.0, begun.present.generation), (8, GENERATION));
    assert!(begun.unclean && begun.present.paused, "nobody wrote down how the last term ended");
    let lanes = LaneCounts { retrying: 1, gap: 1, undecodable: 1, conflicting: 1, ..LaneCounts::default() };
    let performing = LaneCounts { retrying: 1, dead: 1, ..LaneCounts::default() };
    assert_eq!(begun.totals, Totals { behind: 12, applying: lanes, performing, effects_waiting: 6 });
    let orders: Vec<_> = before.iter().map(|row| row.order).collect();
    assert_eq!(inbox.rows(GENERATION, orders.clone()).await.expect("rows"), before);
    let due = inbox.due(GENERATION, Work::Applying, Timestamp::from_millis(10), 10).await.expect("rows");
    assert_eq!(due, [before[2].clone(), before[1].clone()]);
    let key = DocumentKey { collection: "orders".into(), id: orders[0].to_string() };
    let documents = inbox.documents(GENERATION, vec![key]).await.expect("documents");
    assert_eq!(documents, [Some(r#"{"a": 1}"#.into())]);
    let effects = inbox.effects(orders[..1].to_vec(), Which::All, 10).await.expect("effects");
    let performed = Outcome { kind: OutcomeKind::Performed, detail: "so".to_owned() };
    let outcomes: Vec<_> = effects.into_iter().map(|effect| effect.outcome).collect();
    assert_eq!(outcomes, [Some((performed, Timestamp::from_millis(6))), None]);

    let mut transaction = Transaction::empty(&begun);
    let row = Row { applying: Lane::Ready, written_by: Some(transaction.id), ..before[1].clone() };
    transaction.rows.push(RowWrite { was_written_by: before[1].written_by, row });
    assert_eq!(inbox.commit(Arc::new(transaction)).await, Ok(Committed::Written));
    inbox.close().await;

    SqliteInbox::open(&directory, "new").expect("an inbox").close().await;
    assert_eq!(tables(&directory.file("test.db")), tables(&directory.file("new.db")));
    let again = SqliteInbox::open(&directory, "test").expect("an inbox");
    assert_eq!(again.rows(GENERATION, orders).await.expect("rows").len(), before.len());
}

/// Something in it cannot be read: nothing is changed, and once that is mended it is brought up to date.
#[tokio::test]
async fn a_file_that_cannot_be_brought_up_to_date_stays_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = DataDirectory::lock(folder.path()).expect("a data folder");
    let (path, before) = (directory.file("test.db"), rows());
    let file = made(&path, &before);
    let shaped = tables(&path);
    file.execute("UPDATE inbox SET hold_state = 'odd' WHERE hold_state = 'gap'", []).expect("changed");
    let Err(InboxError::Damaged(why)) = SqliteInbox::open(&directory, "test") else { panic!("it is odd") };
    assert!(why.contains("odd"), "{why}");
    assert_eq!((shape(&path), tables(&path)), (1, shaped));
    file.execute("UPDATE inbox SET hold_state = 'gap' WHERE hold_state = 'odd'", []).expect("mended");
    drop(file);
    let inbox = SqliteInbox::open(&directory, "test").expect("an inbox");
    let orders = before.iter().map(|row| row.order).collect();
    assert_eq!(inbox.rows(GENERATION, orders).await.expect("rows"), before);
}

#[tokio::test]
async fn a_file_of_a_later_shape_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = DataDirectory::lock(folder.path()).expect("a data folder");
    SqliteInbox::open(&directory, "test").expect("an inbox").close().await;
    let path = directory.file("test.db");
    let later = shape(&path) + 1;
    let file = Connection::open(&path).expect("a file");
    file.pragma_update(None, "user_version", later).expect("a shape");
    drop(file);
    let Err(InboxError::Damaged(why)) = SqliteInbox::open(&directory, "test") else { panic!("it is of a later shape") };
    assert!(why.contains(&format!("shape {later}")), "{why}");
}
