//! What an operator writes, beside whoever is at work.

use std::sync::Arc;

use super::holds::full_hold;
use super::{Another, applies, at, begin_when_over, commit, is_held, rows};
use crate::event::EventId;
use crate::inbox::{
    Committed, Discard, EffectOutcome, Generation, HoldState, Inbox, Lane, Outcome, OutcomeKind, RecordedEffect,
    Renewed, Row, RowWrite, Transaction, TransactionId, Which,
};
use crate::order::{OrderId, Version};

/// An operator's transaction that makes the lane of a row ready and counts its next event as applied, with a discard.
pub(super) async fn discards(inbox: &dyn Inbox, before: &Row) -> Transaction {
    let mut transaction = Transaction::of_operator(&inbox.present().await.expect("present"));
    let version = before.applied.next();
    let row = Row {
        applied: version,
        seen: version.max(before.seen),
        applying: Lane::Ready,
        written_by: Some(transaction.id),
        ..before.clone()
    };
    transaction.discards.push(discard(before.order, version));
    transaction.rows.push(RowWrite { was_written_by: before.written_by, row });
    transaction
}

fn discard(order: OrderId, version: Version) -> Discard {
    Discard {
        order,
        version,
        event: Some(EventId::generate()),
        event_type: Some("order.paid".to_owned()),
        effect: None,
        reason: "it's \"so\" 🧾".to_owned(),
        by: "ana".to_owned(),
        at: at(i64::from(version.0)),
        hold: full_hold(HoldState::Dead),
    }
}

async fn revision(inbox: &dyn Inbox) -> u64 {
    inbox.present().await.expect("present").revision
}

/// In no term, in the present one and after another has begun: it is written, and each is counted; those of whoever is at
/// work are not.
pub async fn an_operator_writes_in_any_term(inbox: &dyn Inbox) {
    let order = OrderId::generate();
    let (first, committed) = commit(inbox, discards(inbox, &Row::new(order)).await).await;
    assert_eq!(committed, Committed::Written);
    let mut before = first.rows[0].row.clone();
    for written in 1..4 {
        let begun = inbox.begin().await.expect("begun");
        assert_eq!((begun.present.revision, revision(inbox).await), (written, written));
        assert_eq!(rows(inbox, &begun, &[order]).await, [before.clone()]);
        let (_, committed) = commit(inbox, applies(&begun, &[Row::new(OrderId::generate())])).await;
        assert_eq!((committed, revision(inbox).await), (Committed::Written, written));
        let (transaction, committed) = commit(inbox, discards(inbox, &before).await).await;
        assert_eq!(committed, Committed::Written);
        before = transaction.rows[0].row.clone();
        let renewed = inbox.renew(begun.term).await.expect("renewed");
        assert!(matches!(renewed, Renewed::Held { present, .. } if present.revision == written + 1), "{renewed:?}");
    }
}

/// What an operator saw has changed: nothing is written, nothing counted.
pub async fn a_row_that_changed_fences_an_operator(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let (a, b) = (OrderId::generate(), OrderId::generate());
    let (stored, _) = commit(inbox, applies(&begun, &[Row::new(a)])).await;
    let mut late = discards(inbox, &stored.rows[0].row).await;
    late.rows.push(RowWrite { was_written_by: None, row: Row { written_by: Some(late.id), ..Row::new(b) } });
    commit(inbox, applies(&begun, &[stored.rows[0].row.clone()])).await;
    let before = rows(inbox, &begun, &[a, b]).await;
    let (late, committed) = commit(inbox, late).await;
    assert_eq!((committed, revision(inbox).await), (Committed::Fenced(vec![a]), 0));
    assert_eq!(rows(inbox, &begun, &[a, b]).await, before);
    assert!(inbox.discards(late.discards[0].order).await.expect("discards").is_empty());
}

/// What whoever is at work has read is what an operator has changed since: they are fenced, and their term goes on.
pub async fn an_operator_fences_whoever_is_at_work(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let order = OrderId::generate();
    let (stored, _) = commit(inbox, applies(&begun, &[Row::new(order)])).await;
    let read = stored.rows[0].row.clone();
    let (operators, committed) = commit(inbox, discards(inbox, &read).await).await;
    assert_eq!(committed, Committed::Written);
    let (_, committed) = commit(inbox, applies(&begun, &[read])).await;
    assert_eq!(committed, Committed::Fenced(vec![order]));
    let (_, committed) = commit(inbox, applies(&begun, &[operators.rows[0].row.clone()])).await;
    assert_eq!(committed, Committed::Written);
}

/// Rows of a generation that is not being written are not an operator's to write either.
pub async fn an_operator_writes_the_present_generation(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let Generation(present) = begun.present.generation;
    let mut transaction = discards(inbox, &Row::new(OrderId::generate())).await;
    transaction.generation = Generation(present + 1);
    let (transaction, committed) = commit(inbox, transaction).await;
    assert_eq!((committed, revision(inbox).await), (Committed::Superseded, 0));
    assert!(inbox.discards(transaction.discards[0].order).await.expect("discards").is_empty());
}

/// A discard comes back as it was, those of an order oldest first, once, however often its transaction is committed.
pub async fn discards_are_kept_once_in_their_order(inbox: &dyn Inbox) {
    let order = OrderId::generate();
    assert!(inbox.discards(order).await.expect("discards").is_empty());
    let (mut before, mut expected) = (Row::new(order), Vec::new());
    for _ in 0..3 {
        let mut transaction = discards(inbox, &before).await;
        let other = discard(OrderId::generate(), Version(1));
        let bare = Discard { event: None, event_type: None, effect: Some(2), ..transaction.discards[0].clone() };
        transaction.discards.extend([other, bare]);
        let (transaction, committed) = commit(inbox, transaction).await;
        assert_eq!(committed, Committed::Written);
        let again = inbox.commit(Arc::clone(&transaction)).await.expect("a definite answer");
        assert_eq!(again, Committed::Fenced(vec![order]));
        before = transaction.rows[0].row.clone();
        expected.extend([transaction.discards[0].clone(), transaction.discards[2].clone()]);
        assert_eq!(inbox.discards(order).await.expect("discards"), expected);
        let others = inbox.discards(transaction.discards[1].order).await.expect("discards");
        assert_eq!(others, transaction.discards[1..2]);
    }
    assert_eq!(revision(inbox).await, 3);
}

/// An effect that an operator has decided not to perform has that for its outcome; it waits no more, and that stays.
pub async fn an_effect_is_discarded_for_good(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let order = OrderId::generate();
    let (stored, _) = commit(inbox, applies(&begun, &[Row::new(order)])).await;
    let (before, effect) = (stored.rows[0].row.clone(), stored.effects[0].clone());
    let mut transaction = Transaction::of_operator(&begun.present);
    let row = Row { effects_waiting: 0, performed: before.applied, written_by: Some(transaction.id), ..before.clone() };
    transaction.rows.push(RowWrite { was_written_by: before.written_by, row });
    let outcome = |kind| Outcome { kind, detail: "wrong address".to_owned() };
    let becomes = |kind| EffectOutcome { order, id: effect.id, outcome: outcome(kind), at: at(5) };
    transaction.outcomes.push(becomes(OutcomeKind::Discarded));
    transaction.discards.push(Discard { effect: Some(effect.id.index), ..discard(order, effect.version) });
    assert_eq!(commit(inbox, transaction).await.1, Committed::Written);
    assert!(inbox.waiting(None, 10).await.expect("orders").is_empty());
    assert_eq!(inbox.totals(begun.present.generation).await.expect("totals").effects_waiting, 0);
    let mut late = Transaction::empty(&begun);
    late.outcomes.push(becomes(OutcomeKind::Performed));
    commit(inbox, late).await;
    let effects = inbox.effects(vec![order], Which::All, 10).await.expect("effects");
    assert_eq!(effects[0].outcome, Some((outcome(OutcomeKind::Discarded), at(5))));
}

/// After an older backup of the log an operator takes less as applied than was: another event comes at that version, and
/// asks for its own effects.
pub async fn another_event_of_a_version_asks_for_effects_of_its_own(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let order = OrderId::generate();
    let (stored, _) = commit(inbox, applies(&begun, &[Row::new(order)])).await;
    let (before, gone) = (stored.rows[0].row.clone(), stored.effects[0].clone());
    let mut transaction = Transaction::of_operator(&begun.present);
    let row = Row { written_by: Some(transaction.id), ..Row::new(order) };
    transaction.rows.push(RowWrite { was_written_by: before.written_by, row: row.clone() });
    let outcome = Outcome { kind: OutcomeKind::Discarded, detail: "an older backup".to_owned() };
    transaction.outcomes.push(EffectOutcome { order, id: gone.id, outcome, at: at(5) });
    assert_eq!(commit(inbox, transaction).await.1, Committed::Written);
    let (stored, committed) = commit(inbox, applies(&begun, &[row])).await;
    assert_eq!(committed, Committed::Written);
    let waiting = inbox.effects(vec![order], Which::Waiting, 10).await.expect("effects");
    let waiting: Vec<_> = waiting.iter().map(|effect| effect.effect.id).collect();
    assert_eq!(waiting, [stored.effects[0].id]);
    assert_eq!(inbox.totals(begun.present.generation).await.expect("totals").effects_waiting, 1);
}

/// After an older backup of the log an operator takes less as applied than was; then the right one is back, and the same
/// event comes again. Its effects are to be performed once more, and that transaction is still written once.
pub async fn an_event_that_comes_again_asks_for_its_effects_again(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let waiting = async || inbox.totals(begun.present.generation).await.expect("totals").effects_waiting;
    let order = OrderId::generate();
    let first = applies(&begun, &[Row::new(order)]);
    let (stored, _) = commit(inbox, first.clone()).await;
    let (before, effect) = (stored.rows[0].row.clone(), stored.effects[0].clone());
    let becomes = |kind, millis| {
        let outcome = Outcome { kind, detail: "an older backup".to_owned() };
        EffectOutcome { order, id: effect.id, outcome, at: at(millis) }
    };
    let mut operators = Transaction::of_operator(&begun.present);
    let row = Row { written_by: Some(operators.id), ..Row::new(order) };
    operators.rows.push(RowWrite { was_written_by: before.written_by, row: row.clone() });
    operators.outcomes.push(becomes(OutcomeKind::Discarded, 5));
    assert_eq!((commit(inbox, operators).await.1, waiting().await), (Committed::Written, 0));
    // As it was, but on the row as the operator left it.
    let mut again = Transaction { id: TransactionId::generate(), ..first };
    again.rows[0].was_written_by = row.written_by;
    again.rows[0].row.written_by = Some(again.id);
    let (again, committed) = commit(inbox, again).await;
    assert_eq!((committed, waiting().await), (Committed::Written, 1));
    let effects = inbox.effects(vec![order], Which::All, 10).await.expect("effects");
    assert_eq!(effects, [RecordedEffect { effect: effect.clone(), outcome: None }]);
    assert_eq!(inbox.waiting(None, 10).await.expect("orders"), [order]);
    // Once more its outcome is there, whoever asks about the transaction, or the one before it, changes nothing of that.
    let mut performed = Transaction::empty(&begun);
    let row = Row { effects_waiting: 0, written_by: Some(performed.id), ..again.rows[0].row.clone() };
    performed.rows.push(RowWrite { was_written_by: Some(again.id), row });
    performed.outcomes.push(becomes(OutcomeKind::Performed, 6));
    assert_eq!(commit(inbox, performed).await.1, Committed::Written);
    for unclear in [again, stored] {
        assert_eq!(inbox.commit(unclear).await, Ok(Committed::Fenced(vec![order])));
    }
    let effects = inbox.effects(vec![order], Which::All, 10).await.expect("effects");
    let EffectOutcome { outcome, at, .. } = becomes(OutcomeKind::Performed, 6);
    assert_eq!((effects, waiting().await), (vec![RecordedEffect { effect, outcome: Some((outcome, at)) }], 0));
}

/// Through a process that is not at work an operator writes beside the one that is: neither loses anything, and nobody's
/// term or lease is touched.
pub async fn operators_write_beside_whoever_is_at_work(inbox: &dyn Inbox, another: Option<Another>) {
    let Some(another) = another else { return };
    let begun = inbox.begin().await.expect("begun");
    let both = OrderId::generate();
    let works = async {
        let mut before = vec![Row::new(OrderId::generate()), Row::new(OrderId::generate())];
        for _ in 0..20 {
            let (transaction, committed) = commit(inbox, applies(&begun, &before)).await;
            assert_eq!(committed, Committed::Written);
            before = transaction.rows.iter().map(|write| write.row.clone()).collect();
        }
        rows(inbox, &begun, &[before[0].order, before[1].order]).await.iter().all(|row| row.applied == Version(20))
    };
    let operates = async {
        let inbox = &*another.inbox;
        let mut before = Row::new(both);
        for _ in 0..10 {
            let (transaction, committed) = commit(inbox, discards(inbox, &before).await).await;
            assert_eq!(committed, Committed::Written);
            before = transaction.rows[0].row.clone();
            assert!(is_held(&inbox.begin().await));
        }
        rows(inbox, &begun, &[both]).await[0].applied == Version(10)
    };
    assert_eq!(tokio::join!(works, operates), (true, true));
    assert_eq!((revision(inbox).await, revision(&*another.inbox).await), (10, 10));
    let renewed = inbox.renew(begun.term).await.expect("renewed");
    assert!(matches!(renewed, Renewed::Held { present, .. } if present.revision == 10), "{renewed:?}");
}

/// However much an operator writes, through any process: that holds no lease, and ends none.
pub async fn an_operator_holds_no_lease(inbox: &dyn Inbox, another: Option<Another>) {
    let Some(another) = another else { return };
    let begun = inbox.begin().await.expect("begun");
    let mut before = Row::new(OrderId::generate());
    let later = {
        let takes_over = begin_when_over(&*another.inbox, another.lease);
        let mut takes_over = std::pin::pin!(takes_over);
        loop {
            let (transaction, committed) = commit(inbox, discards(inbox, &before).await).await;
            assert_eq!(committed, Committed::Written);
            before = transaction.rows[0].row.clone();
            if let Ok(later) = tokio::time::timeout(another.lease / 10, &mut takes_over).await {
                break later;
            }
        }
    };
    assert!(later.term > begun.term && later.unclean);
    let (_, committed) = commit(inbox, discards(inbox, &before).await).await;
    assert_eq!(committed, Committed::Written, "who is not at work any more is an operator like any other");
    assert!(is_held(&inbox.begin().await));
    another.inbox.release(later.term).await.expect("given back");
    let operators = discards(inbox, &Row::new(OrderId::generate())).await;
    assert_eq!(commit(inbox, operators).await.1, Committed::Written);
    assert!(!another.inbox.begin().await.expect("it is free").unclean);
}

/// The outcome is unknown to its caller, who commits it again: its rows say that it was written.
pub async fn an_operators_transaction_recognises_itself(inbox: &dyn Inbox) {
    let order = OrderId::generate();
    let (transaction, _) = commit(inbox, discards(inbox, &Row::new(order)).await).await;
    inbox.begin().await.expect("begun");
    let again = inbox.commit(Arc::clone(&transaction)).await.expect("a definite answer");
    assert_eq!(again, Committed::Fenced(vec![order]));
    let stored = inbox.rows(transaction.generation, vec![order]).await.expect("rows");
    let written_by: Vec<Option<TransactionId>> = stored.iter().map(|row| row.written_by).collect();
    assert_eq!((written_by, revision(inbox).await), (vec![Some(transaction.id)], 1));
}
