//! What every adapter of the inbox has to do. Each function gets an inbox that is new and empty;
//! [`everything_is_there_after_reopening`] also gets a way to open it once more, and those about leases a second process's
//! way to it, where there can be one ([`Another`]).

pub mod extremes;
pub mod holds;
pub mod operators;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::commit::Origin;
use crate::event::EventId;
use crate::inbox::{
    Attempt, Begun, CatchingUp, Committed, DocumentKey, DocumentWrite, EffectId, EffectOutcome, Failure, Hold,
    HoldState, Inbox, InboxError, Lane, NewEffect, Outcome, OutcomeKind, Present, Progress, Renewed, Row, RowWrite,
    Transaction, TransactionId, Which, Work,
};
use crate::log::{LogId, Position};
use crate::order::{OrderId, Version};

pub use self::operators::{an_operator_holds_no_lease, operators_write_beside_whoever_is_at_work};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_795_000_000_000 + millis)
}

/// Gives the names of the tests about leases to a macro of the caller's: `inbox_leases!(leases)` is `leases!(…)` with
/// all of them. Each takes an inbox and [`Another`] on the same store.
#[macro_export]
macro_rules! inbox_leases {
    ($tests:ident) => {
        $tests! {
            while_it_is_held_nobody_else_begins,
            a_lease_lasts_while_it_is_renewed_or_written_under,
            when_it_is_over_another_takes_it_and_the_earlier_term_writes_nothing,
            given_back_it_is_taken_at_once,
            renewed_late_it_is_held_again,
            of_many_who_begin_at_once_one_does,
            whoever_is_at_work_learns_of_rest_from_any_process,
            effects_are_read_through_any_process,
            whoever_takes_over_learns_how_the_last_term_ended,
            operators_write_beside_whoever_is_at_work,
            an_operator_holds_no_lease,
        }
    };
}

fn key(id: OrderId) -> DocumentKey {
    DocumentKey { collection: "orders".into(), id: id.to_string() }
}

/// A transaction that applies one more event of each order, with a document, and one effect for each.
pub fn applies(begun: &Begun, before: &[Row]) -> Transaction {
    let mut transaction = Transaction::empty(begun);
    for before in before {
        let version = before.applied.next();
        let event = EventId::generate();
        let row = Row {
            applied: version,
            applied_event: Some(event),
            seen: version,
            effects_waiting: before.effects_waiting + 1,
            written_by: Some(transaction.id),
            ..before.clone()
        };
        transaction.rows.push(RowWrite { was_written_by: before.written_by, row });
        let body = Some(format!(r#"{{"version":{version}}}"#).into());
        transaction.documents.push(DocumentWrite { key: key(before.order), body });
        transaction.effects.push(NewEffect {
            id: EffectId { event, index: 0 },
            order: before.order,
            version,
            last_of_event: true,
            recorded_at: at(i64::from(version.0)),
            origin: Origin::anonymous("c".to_owned(), Some("t".to_owned())),
            body: r#"{"mail":1}"#.into(),
        });
    }
    transaction
}

async fn commit(inbox: &dyn Inbox, transaction: Transaction) -> (Arc<Transaction>, Committed) {
    let transaction = Arc::new(transaction);
    let committed = inbox.commit(transaction.clone()).await.expect("a definite answer");
    (transaction, committed)
}

async fn rows(inbox: &dyn Inbox, begun: &Begun, orders: &[OrderId]) -> Vec<Row> {
    inbox.rows(begun.present.generation, orders.to_vec()).await.expect("rows")
}

/// Rows, documents, effects and position are stored together and come back as they were.
pub async fn a_transaction_comes_back_as_it_was(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    assert_eq!((begun.progress.clone(), begun.present.paused, begun.totals.behind), (None, false, 0));
    let order = OrderId::generate();
    let mut transaction = applies(&begun, &[Row::new(order)]);
    transaction.rows[0].row.seen = Version(4);
    let mut hold = Hold::new(HoldState::Retrying, at(7), Some(at(9)));
    hold.attempts = 3;
    hold.keep(Attempt { at: at(8), failure: Failure::permanent("it's \"so\"") });
    transaction.rows[0].row.applying = Lane::Held(Box::new(hold));
    let position = Position { log: LogId(Uuid::from_u128(1)), token: "7".to_owned(), commit: None };
    let key_of_scan = format!("{order}:0000000001").parse().ok();
    transaction.progress = Some(Progress { position, catching_up: Some(CatchingUp { after: key_of_scan }) });
    let (transaction, committed) = commit(inbox, transaction).await;
    assert_eq!(committed, Committed::Written);
    assert_eq!(rows(inbox, &begun, &[OrderId::generate(), order]).await, [transaction.rows[0].row.clone()]);
    let keys = vec![key(OrderId::generate()), key(order)];
    let documents = inbox.documents(begun.present.generation, keys).await.expect("documents");
    assert_eq!(documents, [None, transaction.documents[0].body.clone()]);
    let effects = inbox.effects(vec![order], Which::All, 10).await.expect("effects");
    assert_eq!(effects.iter().map(|effect| &effect.effect).collect::<Vec<_>>(), [&transaction.effects[0]]);
    let again = inbox.begin().await.expect("begun");
    assert_eq!((&again.progress, again.totals.behind), (&transaction.progress, 3));
    assert_eq!((again.totals.applying.retrying, again.totals.effects_waiting), (1, 1));
}

/// One row that somebody else wrote, and nothing of the transaction is stored; the answer names the orders.
pub async fn a_row_that_changed_fences_the_whole_transaction(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let (a, b) = (OrderId::generate(), OrderId::generate());
    commit(inbox, applies(&begun, &[Row::new(a)])).await;
    let before = rows(inbox, &begun, &[a, b]).await;
    // Made from rows as they were before.
    let (_, committed) = commit(inbox, applies(&begun, &[Row::new(b), Row::new(a)])).await;
    assert_eq!(committed, Committed::Fenced(vec![a]));
    assert_eq!(rows(inbox, &begun, &[a, b]).await, before);
    assert_eq!(inbox.documents(begun.present.generation, vec![key(b)]).await.expect("documents"), [None]);
    assert!(inbox.effects(vec![b], Which::All, 1).await.expect("effects").is_empty());
    let gone = Row { written_by: Some(TransactionId::generate()), ..Row::new(b) };
    let (_, committed) = commit(inbox, applies(&begun, &[gone])).await;
    assert_eq!(committed, Committed::Fenced(vec![b]));
}

/// Committed again, a transaction is fenced by itself, and its rows say so.
pub async fn a_transaction_recognises_itself(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let order = OrderId::generate();
    let (transaction, _) = commit(inbox, applies(&begun, &[Row::new(order)])).await;
    let again = inbox.commit(transaction.clone()).await.expect("a definite answer");
    assert_eq!(again, Committed::Fenced(vec![order]));
    assert_eq!(rows(inbox, &begun, &[order]).await[0].written_by, Some(transaction.id));
}

/// A later term ends all that came before it.
pub async fn an_earlier_term_writes_nothing(inbox: &dyn Inbox) {
    let earlier = inbox.begin().await.expect("begun");
    let later = inbox.begin().await.expect("begun");
    assert!(later.term > earlier.term);
    let order = OrderId::generate();
    let (_, committed) = commit(inbox, applies(&earlier, &[Row::new(order)])).await;
    assert_eq!(committed, Committed::Superseded);
    assert!(rows(inbox, &later, &[order]).await.is_empty());
}

/// Lanes that are due come in the order of their time, those for performing apart from those for applying.
pub async fn due_lanes_come_oldest_first(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let held = |millis: Option<i64>| {
        let next_attempt_at = millis.map(at);
        Lane::Held(Box::new(Hold::new(HoldState::Gap, at(0), next_attempt_at)))
    };
    let mut transaction = Transaction::empty(&begun);
    let mut add = |applying: Lane, performing: Lane| {
        let order = OrderId::generate();
        let row = Row { applying, performing, written_by: Some(transaction.id), ..Row::new(order) };
        transaction.rows.push(RowWrite { was_written_by: None, row });
        order
    };
    let late = add(held(Some(30)), Lane::Ready);
    let early = add(held(Some(10)), Lane::Ready);
    add(held(None), Lane::Ready);
    add(Lane::Ready, Lane::Ready);
    let performing = add(Lane::Ready, held(Some(20)));
    commit(inbox, transaction).await;
    let due = async |work, until, limit| {
        let rows = inbox.due(begun.present.generation, work, at(until), limit).await.expect("rows");
        rows.into_iter().map(|row| row.order).collect::<Vec<_>>()
    };
    assert_eq!(due(Work::Applying, 29, 10).await, [early]);
    assert_eq!(due(Work::Applying, 30, 10).await, [early, late]);
    assert_eq!(due(Work::Applying, 30, 1).await, [early]);
    assert_eq!(due(Work::Performing, 30, 10).await, [performing]);
    let next = async |work, after| inbox.next_due(begun.present.generation, work, at(after)).await.expect("a time");
    assert_eq!(next(Work::Applying, 9).await, Some(at(10)));
    assert_eq!(next(Work::Applying, 10).await, Some(at(30)));
    assert_eq!(next(Work::Applying, 30).await, None);
    assert_eq!(next(Work::Performing, 0).await, Some(at(20)));
}

/// Effects wait until they have an outcome, the first of an order first; orders whose lane is held are not listed.
pub async fn effects_wait_for_their_outcome(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let mut orders = [OrderId::generate(), OrderId::generate(), OrderId::generate()];
    orders.sort_unstable();
    let (first, _) = commit(inbox, applies(&begun, &orders.map(Row::new))).await;
    let before: Vec<_> = first.rows.iter().map(|write| write.row.clone()).collect();
    commit(inbox, applies(&begun, &before[..1])).await;
    assert_eq!(inbox.waiting(None, 10).await.expect("orders"), orders);
    assert_eq!(inbox.waiting(Some(orders[0]), 1).await.expect("orders"), orders[1..2]);

    let mut transaction = Transaction::empty(&begun);
    let outcome = Outcome { kind: OutcomeKind::Skipped, detail: "no address".to_owned() };
    let id = first.effects[0].id;
    transaction.outcomes.push(EffectOutcome { order: orders[0], id, outcome: outcome.clone(), at: at(5) });
    let hold = Hold::new(HoldState::Retrying, at(0), Some(at(9)));
    let row = Row { performing: Lane::Held(Box::new(hold)), written_by: Some(transaction.id), ..before[1].clone() };
    transaction.rows.push(RowWrite { was_written_by: before[1].written_by, row });
    commit(inbox, transaction).await;
    assert_eq!(inbox.waiting(None, 10).await.expect("orders"), [orders[0], orders[2]]);
    let waiting = inbox.effects(vec![orders[0]], Which::Waiting, 10).await.expect("effects");
    assert_eq!(waiting.iter().map(|effect| effect.effect.version).collect::<Vec<_>>(), [Version(2)]);
    let all = inbox.effects(vec![orders[0]], Which::All, 10).await.expect("effects");
    assert_eq!(all[0].outcome, Some((outcome, at(5))));
    assert_eq!(inbox.effects(vec![orders[0]], Which::All, 1).await.expect("effects").len(), 1);
}

/// A document can be replaced and deleted.
pub async fn documents_are_replaced_and_deleted(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let order = OrderId::generate();
    for body in [Some(r#"{"a":1}"#), Some(r#"{"a":2}"#), None, None] {
        let mut transaction = Transaction::empty(&begun);
        transaction.documents.push(DocumentWrite { key: key(order), body: body.map(Into::into) });
        commit(inbox, transaction).await;
        let document = inbox.documents(begun.present.generation, vec![key(order)]).await.expect("documents").remove(0);
        assert_eq!(document.as_deref(), body);
    }
}

/// Rest is kept until it is over.
pub async fn rest_is_kept(inbox: &dyn Inbox) {
    for paused in [true, false] {
        inbox.set_paused(paused).await.expect("kept");
        assert_eq!(inbox.begin().await.expect("begun").present.paused, paused);
    }
}

/// A term that was given up has ended in order, unless somebody went on in it; any other has not. The first has none
/// before it.
pub async fn a_term_ends_in_order_when_it_is_given_up(inbox: &dyn Inbox) {
    let first = inbox.begin().await.expect("begun");
    assert!(!first.unclean);
    let second = inbox.begin().await.expect("begun");
    assert!(second.unclean, "nobody gave it up");
    inbox.release(first.term).await.expect("an answer");
    let third = inbox.begin().await.expect("begun");
    assert!(third.unclean, "an earlier term was given up");
    for _ in 0..2 {
        inbox.release(third.term).await.expect("given up");
    }
    let fourth = inbox.begin().await.expect("begun");
    assert!(!fourth.unclean);
    inbox.release(fourth.term).await.expect("given up");
    let (_, committed) = commit(inbox, applies(&fourth, &[Row::new(OrderId::generate())])).await;
    assert_eq!(committed, Committed::Written);
    let fifth = inbox.begin().await.expect("begun");
    assert!(fifth.unclean, "it went on");
    inbox.release(fifth.term).await.expect("given up");
    let renewed = inbox.renew(fifth.term).await.expect("renewed");
    assert!(matches!(renewed, Renewed::Held { .. }), "{renewed:?}");
    assert!(inbox.begin().await.expect("begun").unclean, "it went on");
}

/// What was committed is there when the store is opened again.
pub async fn everything_is_there_after_reopening(inbox: Arc<dyn Inbox>, reopen: impl AsyncFnOnce() -> Arc<dyn Inbox>) {
    let begun = inbox.begin().await.expect("begun");
    let order = OrderId::generate();
    let (transaction, _) = commit(&*inbox, applies(&begun, &[Row::new(order)])).await;
    let operators = operators::discards(&*inbox, &Row::new(OrderId::generate())).await;
    let (operators, _) = commit(&*inbox, operators).await;
    inbox.set_paused(true).await.expect("kept");
    drop(inbox);
    let inbox = reopen().await;
    let present = Present { paused: true, revision: 1, ..begun.present };
    assert_eq!(inbox.present().await, Ok(present));
    assert_eq!(inbox.discards(operators.rows[0].row.order).await, Ok(operators.discards.clone()));
    let again = inbox.begin().await.expect("begun");
    assert!(again.term > begun.term && again.unclean);
    assert_eq!(again.present, present);
    assert_eq!(rows(&*inbox, &again, &[order]).await, [transaction.rows[0].row.clone()]);
}

/// A second process's way to the same inbox, and how long its leases are: short, for these tests wait for their end.
pub struct Another {
    /// Its inbox.
    pub inbox: Arc<dyn Inbox>,
    /// The length of a lease, of either process.
    pub lease: Duration,
}

/// Waits until the lease that another process holds ends, and begins then.
async fn begin_when_over(inbox: &dyn Inbox, lease: Duration) -> Begun {
    let asked_at = Instant::now();
    loop {
        match inbox.begin().await {
            Ok(begun) => return begun,
            Err(InboxError::Held { ends_in, .. }) => {
                assert!(ends_in <= lease, "it ends in {ends_in:?}, and is {lease:?} long");
                assert!(asked_at.elapsed() < lease * 10, "it does not end");
                tokio::time::sleep(ends_in.min(lease / 10).max(Duration::from_millis(1))).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn is_held(begun: &Result<Begun, InboxError>) -> bool {
    matches!(begun, Err(InboxError::Held { .. }))
}

/// While one process holds the lease no other begins, however often it asks; the holder itself may, at once.
pub async fn while_it_is_held_nobody_else_begins(inbox: &dyn Inbox, another: Option<Another>) {
    let Some(another) = another else { return };
    let begun = inbox.begin().await.expect("begun");
    assert_eq!(begun.lease, Some(another.lease));
    let Err(InboxError::Held { by, ends_in }) = another.inbox.begin().await else { panic!("it is held") };
    assert!(!by.is_empty() && !ends_in.is_zero() && ends_in <= another.lease);
    let order = OrderId::generate();
    let (_, committed) = commit(inbox, applies(&begun, &[Row::new(order)])).await;
    assert_eq!(committed, Committed::Written, "who was refused has changed nothing");
    let again = inbox.begin().await.expect("it is not in its own way");
    assert!(again.term > begun.term);
    assert!(is_held(&another.inbox.begin().await));
}

/// Held on to, a lease lasts as long as somebody does so: by renewing it, or by writing.
pub async fn a_lease_lasts_while_it_is_renewed_or_written_under(inbox: &dyn Inbox, another: Option<Another>) {
    let Some(another) = another else { return };
    let begun = inbox.begin().await.expect("begun");
    for by_writing in [false, true] {
        let since = Instant::now();
        while since.elapsed() < another.lease * 3 / 2 {
            if by_writing {
                let (_, committed) = commit(inbox, applies(&begun, &[Row::new(OrderId::generate())])).await;
                assert_eq!(committed, Committed::Written);
            } else {
                let renewed = inbox.renew(begun.term).await.expect("renewed");
                assert!(
                    matches!(renewed, Renewed::Held { lease: Some(_), present: Present { paused: false, .. } }),
                    "{renewed:?}"
                );
            }
            assert!(is_held(&another.inbox.begin().await), "by writing: {by_writing}");
            tokio::time::sleep(another.lease / 10).await;
        }
    }
}

/// Once it is over another process begins; nothing of the earlier term is written any more, and a renewal says so. The
/// rows are as the earlier one left them.
pub async fn when_it_is_over_another_takes_it_and_the_earlier_term_writes_nothing(
    inbox: &dyn Inbox,
    another: Option<Another>,
) {
    let Some(another) = another else { return };
    let earlier = inbox.begin().await.expect("begun");
    let order = OrderId::generate();
    let (stored, _) = commit(inbox, applies(&earlier, &[Row::new(order)])).await;
    let later = begin_when_over(&*another.inbox, another.lease).await;
    assert!(later.term > earlier.term);
    assert_eq!(rows(&*another.inbox, &later, &[order]).await, [stored.rows[0].row.clone()]);
    for before in [stored.rows[0].row.clone(), Row::new(OrderId::generate())] {
        let (_, committed) = commit(inbox, applies(&earlier, &[before])).await;
        assert_eq!(committed, Committed::Superseded);
    }
    assert_eq!(inbox.renew(earlier.term).await.expect("an answer"), Renewed::Superseded);
    assert!(is_held(&inbox.begin().await));
    inbox.release(earlier.term).await.expect("an answer");
    assert!(is_held(&inbox.begin().await), "what is another's cannot be given back");
    let (_, committed) = commit(&*another.inbox, applies(&later, &[stored.rows[0].row.clone()])).await;
    assert_eq!(committed, Committed::Written);
}

/// Given back, it can be taken at once; who gave it back writes nothing when somebody has taken it.
pub async fn given_back_it_is_taken_at_once(inbox: &dyn Inbox, another: Option<Another>) {
    let Some(another) = another else { return };
    let earlier = inbox.begin().await.expect("begun");
    inbox.release(earlier.term).await.expect("given back");
    inbox.release(earlier.term).await.expect("given back, again");
    let later = another.inbox.begin().await.expect("it is free");
    assert!(later.term > earlier.term);
    let (_, committed) = commit(inbox, applies(&earlier, &[Row::new(OrderId::generate())])).await;
    assert_eq!(committed, Committed::Superseded);
    another.inbox.release(later.term).await.expect("given back");
    assert!(inbox.begin().await.expect("it is free").term > later.term);
}

/// A lease that ended and that nobody has taken is held again by a renewal, or by writing.
pub async fn renewed_late_it_is_held_again(inbox: &dyn Inbox, another: Option<Another>) {
    let Some(another) = another else { return };
    let begun = inbox.begin().await.expect("begun");
    tokio::time::sleep(another.lease * 3 / 2).await;
    let renewed = inbox.renew(begun.term).await.expect("renewed");
    assert!(matches!(renewed, Renewed::Held { .. }), "{renewed:?}");
    assert!(is_held(&another.inbox.begin().await));
    tokio::time::sleep(another.lease * 3 / 2).await;
    let (_, committed) = commit(inbox, applies(&begun, &[Row::new(OrderId::generate())])).await;
    assert_eq!(committed, Committed::Written);
    assert!(is_held(&another.inbox.begin().await));
}

/// Of many who ask at once one begins.
pub async fn of_many_who_begin_at_once_one_does(inbox: &dyn Inbox, another: Option<Another>) {
    let Some(another) = another else { return };
    let begun = inbox.begin().await.expect("begun");
    inbox.release(begun.term).await.expect("given back");
    for _ in 0..10 {
        let (one, other) = tokio::join!(inbox.begin(), another.inbox.begin());
        let (winner, begun, loser) = match (one, other) {
            (Ok(begun), loser) => (inbox, begun, loser),
            (loser, Ok(begun)) => (&*another.inbox, begun, loser),
            neither => panic!("{neither:?}"),
        };
        assert!(is_held(&loser), "{loser:?}");
        let (_, committed) = commit(winner, applies(&begun, &[Row::new(OrderId::generate())])).await;
        assert_eq!(committed, Committed::Written);
        winner.release(begun.term).await.expect("given back");
    }
}

/// Told to rest through any process, the one at work learns it when it renews, and the next one when it begins.
pub async fn whoever_is_at_work_learns_of_rest_from_any_process(inbox: &dyn Inbox, another: Option<Another>) {
    let Some(another) = another else { return };
    let begun = inbox.begin().await.expect("begun");
    for rest in [true, false, true] {
        another.inbox.set_paused(rest).await.expect("kept");
        let renewed = inbox.renew(begun.term).await.expect("renewed");
        assert!(matches!(renewed, Renewed::Held { present, .. } if present.paused == rest), "{renewed:?}");
    }
    inbox.release(begun.term).await.expect("given back");
    assert!(another.inbox.begin().await.expect("it is free").present.paused);
}

/// Whoever begins next in another process learns whether the last one ended in order.
pub async fn whoever_takes_over_learns_how_the_last_term_ended(inbox: &dyn Inbox, another: Option<Another>) {
    let Some(another) = another else { return };
    let earlier = inbox.begin().await.expect("begun");
    assert!(!earlier.unclean);
    let later = begin_when_over(&*another.inbox, another.lease).await;
    assert!(later.unclean, "its lease ended, and it may have ended with it");
    another.inbox.release(later.term).await.expect("given back");
    assert!(!inbox.begin().await.expect("it is free").unclean);
}

/// What is recorded can be read through any process, whoever is at work.
pub async fn effects_are_read_through_any_process(inbox: &dyn Inbox, another: Option<Another>) {
    let Some(another) = another else { return };
    let begun = inbox.begin().await.expect("begun");
    let order = OrderId::generate();
    let (transaction, _) = commit(inbox, applies(&begun, &[Row::new(order)])).await;
    let effects = another.inbox.effects(vec![order], Which::All, 10).await.expect("effects");
    assert_eq!(effects.iter().map(|effect| &effect.effect).collect::<Vec<_>>(), [&transaction.effects[0]]);
}
