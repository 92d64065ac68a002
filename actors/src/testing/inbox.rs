//! An inbox in memory, with faults on purpose. Cloned, it is the same inbox: what is kept over a "crash". With a holder's
//! name it is that process's way to an inbox that several processes share.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::inbox::{
    Begun, Body, Committed, Discard, DocumentKey, Generation, HoldState, Inbox, InboxError, Lane, NewEffect, Outcome,
    Present, Progress, RecordedEffect, Renewed, Row, Term, Totals, Transaction, TransactionId, Which, Work,
};
use crate::order::{OrderId, Version};

/// What is to go wrong with the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not written, and says so.
    Away,
    /// It is not written, and nobody knows.
    UnknownLost,
    /// It is written, and nobody knows.
    UnknownWritten,
}

/// The inbox.
#[derive(Clone, Default)]
pub struct MemoryInbox {
    tables: Arc<Mutex<Tables>>,
    /// `None`: no other process uses it.
    process: Option<Process>,
}

/// Who holds a lease, and for how long it is given.
#[derive(Clone)]
struct Process {
    holder: Arc<str>,
    length: Duration,
}

struct Lease {
    holder: Arc<str>,
    until: Instant,
}

#[derive(Default)]
struct Tables {
    term: Term,
    lease: Option<Lease>,
    /// How far the store's clock has jumped ahead.
    jumped: Duration,
    /// The terms that were begun, and by whom.
    holders: Vec<(Term, Option<Arc<str>>)>,
    generation: Generation,
    paused: bool,
    revision: u64,
    /// A term was begun and has not ended in order.
    at_work: bool,
    discards: Vec<Discard>,
    progress: Option<Progress>,
    rows: HashMap<OrderId, Row>,
    documents: BTreeMap<DocumentKey, Body>,
    effects: BTreeMap<(OrderId, Version, u32), RecordedEffect>,
    faults: VecDeque<Fault>,
}

impl MemoryInbox {
    /// The same inbox as the process of that name uses it, where several do.
    #[must_use]
    pub fn of_process(&self, name: &str, lease: Duration) -> Self {
        let process = Process { holder: name.into(), length: lease };
        Self { tables: Arc::clone(&self.tables), process: Some(process) }
    }

    /// The store's clock jumps ahead: leases end before their time.
    pub fn jump(&self, ahead: Duration) {
        self.lock().jumped += ahead;
    }

    /// Which process holds the lease now.
    pub fn holder(&self) -> Option<Arc<str>> {
        let mut tables = self.lock();
        let now = tables.now();
        tables.lease.take_if(|lease| lease.until <= now);
        tables.lease.as_ref().map(|lease| Arc::clone(&lease.holder))
    }

    /// Which process began each term, one after another.
    pub fn holders(&self) -> Vec<Option<Arc<str>>> {
        self.lock().holders.iter().map(|(_, holder)| holder.clone()).collect()
    }

    /// The next commits go wrong like this, one after another.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.extend(faults);
    }

    /// Somebody else writes the order's row, as it is, if there is one.
    pub fn touch(&self, order: OrderId) {
        if let Some(row) = self.lock().rows.get_mut(&order) {
            row.written_by = Some(TransactionId::generate());
        }
    }

    /// All rows.
    pub fn all_rows(&self) -> Vec<Row> {
        self.lock().rows.values().cloned().collect()
    }

    /// All effects, order by order.
    pub fn all_effects(&self) -> Vec<RecordedEffect> {
        self.lock().effects.values().cloned().collect()
    }

    /// How far the log is followed.
    pub fn progress(&self) -> Option<Progress> {
        self.lock().progress.clone()
    }

    /// As [`Inbox::begin`], at once, whoever holds the lease.
    pub fn begin_now(&self) -> Begun {
        let mut tables = self.lock();
        tables.term.0 += 1;
        let term = tables.term;
        tables.holders.push((term, self.process.as_ref().map(|process| Arc::clone(&process.holder))));
        let unclean = tables.at_work;
        self.go_on(&mut tables);
        Begun {
            term,
            lease: self.length(),
            held_after: Duration::ZERO,
            present: tables.present(),
            unclean,
            progress: tables.progress.clone(),
            totals: tables.totals(),
        }
    }

    /// As [`Inbox::commit`], at once.
    ///
    /// # Errors
    /// As it was told to ([`MemoryInbox::fail`]).
    pub fn commit_now(&self, transaction: &Transaction) -> Result<Committed, InboxError> {
        let mut tables = self.lock();
        match tables.faults.pop_front() {
            None => Ok(self.commit_in(&mut tables, transaction)),
            Some(Fault::Away) => Err(InboxError::Away("told to".to_owned())),
            Some(Fault::UnknownLost) => Err(InboxError::Unknown("told to".to_owned())),
            Some(Fault::UnknownWritten) => {
                self.commit_in(&mut tables, transaction);
                Err(InboxError::Unknown("told to".to_owned()))
            }
        }
    }

    /// As [`Inbox::present`], at once.
    pub fn present_now(&self) -> Present {
        self.lock().present()
    }

    /// As [`Inbox::totals`], at once.
    pub fn totals_now(&self) -> Totals {
        self.lock().totals()
    }

    /// As [`Inbox::rows`], at once.
    pub fn rows_now(&self, orders: &[OrderId]) -> Vec<Row> {
        let tables = self.lock();
        orders.iter().filter_map(|order| tables.rows.get(order).cloned()).collect()
    }

    /// As [`Inbox::due`], at once.
    pub fn due_now(&self, work: Work, until: Timestamp, limit: usize) -> Vec<Row> {
        let tables = self.lock();
        let mut due: Vec<_> = tables
            .rows
            .values()
            .filter_map(|row| next_attempt_at(row, work).filter(|at| *at <= until).map(|at| (at, row)))
            .collect();
        due.sort_by_key(|(at, row)| (*at, row.order));
        due.into_iter().take(limit).map(|(_, row)| row.clone()).collect()
    }

    /// As [`Inbox::next_due`], at once.
    pub fn next_due_now(&self, work: Work, after: Timestamp) -> Option<Timestamp> {
        self.lock().rows.values().filter_map(|row| next_attempt_at(row, work)).filter(|at| *at > after).min()
    }

    /// As [`Inbox::documents`], at once.
    pub fn documents_now(&self, keys: &[DocumentKey]) -> Vec<Option<Body>> {
        let tables = self.lock();
        keys.iter().map(|key| tables.documents.get(key).cloned()).collect()
    }

    /// As [`Inbox::waiting`], at once.
    pub fn waiting_now(&self, after: Option<OrderId>, limit: usize) -> Vec<OrderId> {
        let tables = self.lock();
        let ready = |order: &OrderId| tables.rows.get(order).is_none_or(|row| row.performing.is_ready());
        let mut waiting: Vec<_> = tables
            .effects
            .values()
            .filter(|effect| effect.outcome.is_none())
            .map(|effect| effect.effect.order)
            .filter(|order| after.is_none_or(|after| *order > after) && ready(order))
            .collect();
        waiting.dedup();
        waiting.truncate(limit);
        waiting
    }

    /// As [`Inbox::effects`], at once.
    pub fn effects_now(&self, orders: &[OrderId], which: Which, limit: usize) -> Vec<RecordedEffect> {
        let tables = self.lock();
        let of_order = |order: &OrderId| {
            let all = (*order, Version::NONE, 0)..=(*order, Version(u32::MAX), u32::MAX);
            let wanted = tables.effects.range(all).map(|(_, effect)| effect);
            let wanted = wanted.filter(|effect| which == Which::All || effect.outcome.is_none());
            wanted.take(limit).cloned().collect::<Vec<_>>()
        };
        orders.iter().flat_map(of_order).collect()
    }

    fn commit_in(&self, tables: &mut Tables, transaction: &Transaction) -> Committed {
        let committed = tables.commit(transaction);
        if committed == Committed::Written && transaction.term.is_some() {
            self.go_on(tables);
        }
        committed
    }

    fn length(&self) -> Option<Duration> {
        self.process.as_ref().map(|process| process.length)
    }

    /// The term goes on, whatever was said before.
    fn go_on(&self, tables: &mut Tables) {
        tables.at_work = true;
        if let Some(Process { holder, length }) = &self.process {
            tables.lease = Some(Lease { holder: Arc::clone(holder), until: tables.now() + *length });
        }
    }

    /// What keeps this process from beginning a term.
    fn held_by_another(&self) -> Option<InboxError> {
        let tables = self.lock();
        let lease = tables.lease.as_ref()?;
        let ends_in = lease.until.saturating_duration_since(tables.now());
        let own = self.process.as_ref().is_some_and(|process| process.holder == lease.holder);
        (!own && !ends_in.is_zero()).then(|| InboxError::Held { by: lease.holder.to_string(), ends_in })
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lane(row: &Row, work: Work) -> &Lane {
    match work {
        Work::Applying => &row.applying,
        Work::Performing => &row.performing,
    }
}

fn next_attempt_at(row: &Row, work: Work) -> Option<Timestamp> {
    lane(row, work).hold().and_then(|hold| hold.next_attempt_at)
}

impl Tables {
    /// By the store's clock.
    fn now(&self) -> Instant {
        Instant::now() + self.jumped
    }

    fn present(&self) -> Present {
        Present { generation: self.generation, paused: self.paused, revision: self.revision }
    }

    fn totals(&self) -> Totals {
        let waiting = self.effects.values().filter(|effect| effect.outcome.is_none()).count();
        let mut totals = Totals { effects_waiting: u64::try_from(waiting).unwrap_or(u64::MAX), ..Totals::default() };
        for row in self.rows.values() {
            totals.behind += row.behind();
            for (lane, counts) in [(&row.applying, &mut totals.applying), (&row.performing, &mut totals.performing)] {
                if let Some(hold) = lane.hold() {
                    *counts.of_mut(hold.state) += 1;
                }
            }
        }
        totals
    }

    fn commit(&mut self, transaction: &Transaction) -> Committed {
        let present = transaction.term.is_none_or(|term| term == self.term);
        if !present || transaction.generation != self.generation {
            return Committed::Superseded;
        }
        let stored = |order: &OrderId| self.rows.get(order).and_then(|row| row.written_by);
        let changed = transaction.rows.iter().filter(|write| stored(&write.row.order) != write.was_written_by);
        let fenced: Vec<_> = changed.map(|write| write.row.order).collect();
        if !fenced.is_empty() {
            return Committed::Fenced(fenced);
        }
        for write in &transaction.rows {
            let row = Row { written_by: Some(transaction.id), ..write.row.clone() };
            self.rows.insert(row.order, row);
        }
        for write in &transaction.documents {
            match &write.body {
                Some(body) => drop(self.documents.insert(write.key.clone(), body.clone())),
                None => drop(self.documents.remove(&write.key)),
            }
        }
        for effect in &transaction.effects {
            self.record(effect);
        }
        for outcome in &transaction.outcomes {
            self.outcome(outcome.order, |effect| effect.id == outcome.id, &outcome.outcome, outcome.at);
        }
        self.discards.extend(transaction.discards.iter().cloned());
        if let Some(progress) = &transaction.progress {
            self.progress = Some(progress.clone());
        }
        if transaction.term.is_none() {
            self.revision += 1;
        }
        Committed::Written
    }

    fn record(&mut self, effect: &NewEffect) {
        let key = (effect.order, effect.version, effect.id.index);
        let before = self.effects.insert(key, RecordedEffect { effect: effect.clone(), outcome: None });
        // What has an outcome may come again, after an operator has taken its event as not applied.
        let is_other = |before: RecordedEffect| before.effect.id != effect.id || before.outcome.is_some();
        assert!(before.is_none_or(is_other), "an effect that waits is recorded once");
    }

    fn outcome(&mut self, order: OrderId, is: impl Fn(&NewEffect) -> bool, outcome: &Outcome, at: Timestamp) {
        let mut effects = self.effects.values_mut();
        if let Some(effect) = effects.find(|effect| effect.effect.order == order && is(&effect.effect)) {
            effect.outcome.get_or_insert_with(|| (outcome.clone(), at));
        }
    }
}

#[async_trait]
impl Inbox for MemoryInbox {
    async fn begin(&self) -> Result<Begun, InboxError> {
        self.held_by_another().map_or_else(|| Ok(self.begin_now()), Err)
    }

    async fn renew(&self, term: Term) -> Result<Renewed, InboxError> {
        let mut tables = self.lock();
        if tables.term != term {
            return Ok(Renewed::Superseded);
        }
        self.go_on(&mut tables);
        Ok(Renewed::Held { lease: self.length(), present: tables.present() })
    }

    async fn release(&self, term: Term) -> Result<(), InboxError> {
        let mut tables = self.lock();
        if tables.term == term {
            tables.lease = None;
            tables.at_work = false;
        }
        Ok(())
    }

    async fn present(&self) -> Result<Present, InboxError> {
        Ok(self.lock().present())
    }

    async fn totals(&self, _: Generation) -> Result<Totals, InboxError> {
        Ok(self.totals_now())
    }

    async fn held(
        &self,
        _: Generation,
        work: Work,
        states: &[HoldState],
        after: Option<OrderId>,
        limit: usize,
    ) -> Result<Vec<Row>, InboxError> {
        let tables = self.lock();
        let wanted = |row: &&Row| {
            let held = lane(row, work).hold().is_some_and(|hold| states.contains(&hold.state));
            held && after.is_none_or(|after| row.order > after)
        };
        let mut held: Vec<_> = tables.rows.values().filter(wanted).cloned().collect();
        held.sort_by_key(|row| row.order);
        held.truncate(limit);
        Ok(held)
    }

    async fn discards(&self, order: OrderId) -> Result<Vec<Discard>, InboxError> {
        Ok(self.lock().discards.iter().filter(|discard| discard.order == order).cloned().collect())
    }

    async fn rows(&self, _: Generation, orders: Vec<OrderId>) -> Result<Vec<Row>, InboxError> {
        Ok(self.rows_now(&orders))
    }

    async fn due(&self, _: Generation, work: Work, until: Timestamp, limit: usize) -> Result<Vec<Row>, InboxError> {
        Ok(self.due_now(work, until, limit))
    }

    async fn next_due(&self, _: Generation, work: Work, after: Timestamp) -> Result<Option<Timestamp>, InboxError> {
        Ok(self.next_due_now(work, after))
    }

    async fn documents(&self, _: Generation, keys: Vec<DocumentKey>) -> Result<Vec<Option<Body>>, InboxError> {
        Ok(self.documents_now(&keys))
    }

    async fn commit(&self, transaction: Arc<Transaction>) -> Result<Committed, InboxError> {
        self.commit_now(&transaction)
    }

    async fn waiting(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, InboxError> {
        Ok(self.waiting_now(after, limit))
    }

    async fn effects(
        &self,
        orders: Vec<OrderId>,
        which: Which,
        limit: usize,
    ) -> Result<Vec<RecordedEffect>, InboxError> {
        Ok(self.effects_now(&orders, which, limit))
    }

    async fn set_paused(&self, paused: bool) -> Result<(), InboxError> {
        self.lock().paused = paused;
        Ok(())
    }
}
