//! Lanes that are not ready: everything that is known of them, in pages, and what they add up to.

use super::{applies, at, commit, rows};
use crate::event::EventId;
use crate::inbox::{
    ATTEMPTS_KEPT_MAX, Attempt, Begun, Committed, ERROR_CHARS_MAX, EffectOutcome, Failure, FailureKind, HeadOfLane,
    Hold, HoldState, Inbox, Lane, LaneCounts, Outcome, OutcomeKind, Row, RowWrite, Totals, Transaction, Work,
};
use crate::order::{OrderId, Version};

/// A hold in that state with everything that one can have, and as large as one can be.
pub fn full_hold(state: HoldState) -> Hold {
    let mut hold = Hold::new(state, at(1), Some(at(2)));
    hold.attempts = u32::MAX;
    hold.head = Some(HeadOfLane {
        version: Version(7),
        event: EventId::generate(),
        event_type: "order.\"paid\"".to_owned(),
        effect: Some(3),
    });
    for attempt in 0..=ATTEMPTS_KEPT_MAX {
        let text = format!("{attempt} 🧾 \u{0}\n'\"\\{}", "ö".repeat(ERROR_CHARS_MAX));
        let failure = match attempt % 4 {
            0 => Failure::transient(text),
            1 => Failure::permanent(text),
            2 => Failure { place: None, ..Failure::dependency_down("") },
            _ => Failure::panicked(&text, "src/a.rs:7"),
        };
        hold.keep(Attempt { at: at(attempt as i64), failure });
    }
    hold
}

fn held(hold: Hold) -> Lane {
    Lane::Held(Box::new(hold))
}

/// Writes these rows, as they are to be.
async fn write(inbox: &dyn Inbox, begun: &Begun, rows: Vec<Row>) -> Vec<Row> {
    let mut transaction = Transaction::empty(begun);
    transaction.rows = rows
        .into_iter()
        .map(|row| RowWrite { was_written_by: row.written_by, row: Row { written_by: Some(transaction.id), ..row } })
        .collect();
    let (transaction, committed) = commit(inbox, transaction).await;
    assert_eq!(committed, Committed::Written);
    transaction.rows.iter().map(|write| write.row.clone()).collect()
}

/// Whatever is known of a lane that is not ready comes back as it was, in either lane; and it becomes ready again.
pub async fn a_hold_comes_back_with_everything(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    for state in HoldState::ALL {
        let order = OrderId::generate();
        let bare = Hold::new(state, at(-5), None);
        let lanes = [
            (held(full_hold(state)), Lane::Ready),
            (held(bare.clone()), held(full_hold(state))),
            (Lane::Ready, held(bare)),
            (Lane::Ready, Lane::Ready),
        ];
        let mut before = Row::new(order);
        for (applying, performing) in lanes {
            let written = write(inbox, &begun, vec![Row { applying, performing, ..before }]).await;
            let stored = rows(inbox, &begun, &[order]).await;
            assert_eq!(stored, written);
            before = stored[0].clone();
        }
    }
}

/// A failure's kind is what it was, whichever it is.
pub async fn every_kind_of_failure_comes_back(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    for kind in [FailureKind::Transient, FailureKind::Permanent, FailureKind::DependencyDown] {
        let mut hold = Hold::new(HoldState::Retrying, at(0), None);
        hold.keep(Attempt { at: at(0), failure: Failure { kind, text: "so".into(), place: Some("a.rs:1".into()) } });
        let row = Row { applying: held(hold), ..Row::new(OrderId::generate()) };
        let written = write(inbox, &begun, vec![row]).await;
        assert_eq!(rows(inbox, &begun, &[written[0].order]).await, written);
    }
}

/// Of so many orders a row each: ready, or held in either lane or both, in all states.
async fn all_kinds(inbox: &dyn Inbox, begun: &Begun, count: usize) -> Vec<Row> {
    let lane = |which: usize| match which.checked_sub(1) {
        None => Lane::Ready,
        Some(which) => held(Hold::new(HoldState::ALL[which], at(0), which.is_multiple_of(2).then(|| at(which as i64)))),
    };
    let kinds = HoldState::ALL.len() + 1;
    let mut all = Vec::new();
    for number in 0..count {
        let applying = lane(number % kinds);
        let behind = if applying.is_ready() { 0 } else { number % 5 };
        let row = Row {
            applied: Version(3),
            seen: Version(3 + u32::try_from(behind).unwrap_or(0)),
            applying,
            performing: lane(number / kinds % kinds),
            ..Row::new(OrderId::generate())
        };
        all.push(row);
    }
    let mut written = write(inbox, begun, all).await;
    written.sort_by_key(|row| row.order);
    written
}

fn lane(row: &Row, work: Work) -> &Lane {
    match work {
        Work::Applying => &row.applying,
        Work::Performing => &row.performing,
    }
}

/// What is held comes by order, in pages, each row once, for either work; of what is in other states nothing comes.
pub async fn held_lanes_come_in_pages(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let generation = begun.present.generation;
    for work in [Work::Applying, Work::Performing] {
        assert_eq!(inbox.held(generation, work, &HoldState::ALL, None, 10).await.expect("rows"), []);
    }
    let all = all_kinds(inbox, &begun, 100).await;
    let mut wanted: Vec<Vec<HoldState>> = HoldState::ALL.map(|state| vec![state]).to_vec();
    wanted.extend([Vec::new(), vec![HoldState::Conflicting, HoldState::Dead], HoldState::ALL.to_vec()]);
    for work in [Work::Applying, Work::Performing] {
        for states in &wanted {
            let is_wanted = |row: &&Row| lane(row, work).hold().is_some_and(|hold| states.contains(&hold.state));
            let expected: Vec<_> = all.iter().filter(is_wanted).cloned().collect();
            assert_eq!(expected.is_empty(), states.is_empty());
            for limit in [1, 7, expected.len().max(1), 1_000] {
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let page = inbox.held(generation, work, states, after, limit).await.expect("rows");
                    assert!(page.len() <= limit);
                    let Some(last) = page.last() else { break };
                    after = Some(last.order);
                    found.extend(page);
                }
                assert_eq!(found, expected, "{work:?} {states:?} by {limit}");
            }
        }
        assert_eq!(inbox.held(generation, work, &HoldState::ALL, None, 0).await.expect("rows"), []);
    }
}

/// The totals are a count over the rows and effects, in every state of either lane, also when some have become ready.
pub async fn totals_are_what_the_rows_add_up_to(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    assert_eq!(begun.totals, Totals::default());
    let mut all = all_kinds(inbox, &begun, 100).await;
    let (effects, _) =
        commit(inbox, applies(&begun, &[Row::new(OrderId::generate()), Row::new(OrderId::generate())])).await;
    let orders: Vec<_> = all.iter().map(|row| row.order).collect();
    for effects_waiting in [2, 1] {
        let totals = inbox.totals(begun.present.generation).await.expect("totals");
        assert_eq!(totals, added_up(&rows(inbox, &begun, &orders).await, effects_waiting));
        assert!(totals.applying.all() > 0 && totals.performing.all() > 0 && totals.behind > 0);
        for row in all.iter_mut().step_by(3) {
            (row.seen, row.applying, row.performing) = (row.applied, Lane::Ready, Lane::Ready);
        }
        all = write(inbox, &begun, all).await;
        let mut transaction = Transaction::empty(&begun);
        let effect = &effects.effects[0];
        let outcome = Outcome { kind: OutcomeKind::Performed, detail: String::new() };
        transaction.outcomes.push(EffectOutcome { order: effect.order, id: effect.id, outcome, at: at(0) });
        assert_eq!(commit(inbox, transaction).await.1, Committed::Written);
    }
    let totals = inbox.totals(begun.present.generation).await.expect("totals");
    assert_eq!(inbox.begin().await.expect("begun").totals, totals);
}

fn added_up(rows: &[Row], effects_waiting: u64) -> Totals {
    let (mut applying, mut performing) = (LaneCounts::default(), LaneCounts::default());
    for row in rows {
        for (lane, counts) in [(&row.applying, &mut applying), (&row.performing, &mut performing)] {
            if let Some(hold) = lane.hold() {
                *counts.of_mut(hold.state) += 1;
            }
        }
    }
    Totals { behind: rows.iter().map(Row::behind).sum(), applying, performing, effects_waiting }
}
