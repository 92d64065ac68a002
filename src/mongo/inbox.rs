//! A subscriber's inbox in a MongoDB database of its own, `docket_NAME`: rows, documents, effects and position, one
//! transaction a batch. Any number of processes may have it open; one has the lease.
//!
//! What is written is on the disks of a majority. Every transaction writes the document that holds the term, whatever
//! else it writes: so none can be stored beside a later term, however long its process was frozen. It never reads the
//! order service's database, nor another subscriber's.

mod discards;
mod documents;
mod effects;
pub mod import;
mod rows;
mod schema;
mod statements;
mod transaction;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actors::clock::Timestamp;
use actors::event_store::StoreError;
use actors::inbox::{
    Begun, Body, CatchingUp, Committed, Discard, DocumentKey, Generation, HoldState, Inbox, InboxError, Present,
    Progress, RecordedEffect, Renewed, Row, Term, Totals, Transaction, Which, Work,
};
use actors::order::OrderId;
use async_trait::async_trait;
use futures_util::future::{try_join_all, try_join3};
use mongodb::bson::{Document, doc};
use mongodb::options::{FindOptions, SessionOptions};
use mongodb::{Collection, Database};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use self::discards::StoredDiscard;
use self::documents::StoredDocument;
use self::effects::{OfOrder, StoredEffect};
use self::rows::{RowId, StoredRow};
use self::schema::{DISCARDS, DOCUMENTS, EFFECTS, INBOX, ONLY, OPERATOR, SUBSCRIBER, Subscriber};
use self::statements::Refused;
use self::transaction::{Attempt, Writer};
use super::error::store_error;
use super::lease::{Acquired, Free, Held, Lease, Seen, blocked_after};
use super::server::{Failed, Server};

/// How long the rows of lanes that are held may take to be counted: some ten million.
const TOTALS_WITHIN: Duration = Duration::from_secs(60);
/// How long a transaction is begun again when the server says that it may succeed: when others are in its way.
const AGAIN_FOR: Duration = Duration::from_secs(3);
/// The wait after the first attempt; it grows with each of the first ones.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
/// So often it grows.
const AGAIN_GROWS_MAX: u32 = 5;
/// Orders with many effects whose effects are loaded at once.
const LOADS_AT_ONCE: usize = 8;
/// Most documents that the server sends at once; what it sends is at most 16 MiB in any case.
const PAGE: u32 = 10_000;

/// How the database of the subscriber `name` is called, where that of the order service is `database`.
pub fn subscriber_database(database: &str, name: &str) -> String {
    format!("{database}_{name}")
}

/// A subscriber's database.
pub struct MongoInbox {
    server: Server,
    database: Database,
    name: String,
    lease: Lease,
    writer: Mutex<Writer>,
    /// The server's name for the writer's session.
    session_id: Document,
}

impl MongoInbox {
    /// Opens the database of the subscriber `name`, beside that of the order service, which is `database`. What is
    /// missing in it is made. `holder` is a name that no other process has; `lease` is how long a term is its own.
    ///
    /// # Errors
    /// When the server does not answer, or the database belongs to a subscriber with another name.
    pub async fn open(
        server: &Server,
        database: &str,
        name: &str,
        holder: &str,
        lease: Duration,
    ) -> Result<Self, InboxError> {
        let database = server.database(&subscriber_database(database, name));
        schema::prepare(server, &database, name).await?;
        // What a transaction may read is said by its own concern.
        let options = SessionOptions::builder().causal_consistency(false).build();
        let session =
            server.answer(server.client().start_session().with_options(options)).await.map_err(write_error)?;
        Ok(Self {
            lease: Lease::new(server, database.collection(SUBSCRIBER), ONLY, holder, lease),
            server: server.clone(),
            name: name.to_owned(),
            session_id: session.id().clone(),
            writer: Mutex::new(Writer::new(session)),
            database,
        })
    }

    fn subscriber(&self) -> Collection<Document> {
        self.database.collection(SUBSCRIBER)
    }

    async fn find<T: DeserializeOwned + Send + Sync>(
        &self,
        collection: &str,
        filter: Document,
        options: FindOptions,
    ) -> Result<Vec<T>, InboxError> {
        let collection = self.database.collection::<T>(collection);
        let found = self.server.answer(async {
            let mut found = collection.find(filter).with_options(options).batch_size(PAGE).await?;
            let mut all = Vec::new();
            while found.advance().await? {
                all.push(found.deserialize_current()?);
            }
            Ok(all)
        });
        found.await.map_err(read_error)
    }

    async fn find_rows(&self, filter: Document, options: FindOptions) -> Result<Vec<Row>, InboxError> {
        let rows: Vec<StoredRow> = self.find(INBOX, filter, options).await?;
        rows.into_iter().map(StoredRow::read).collect()
    }

    async fn find_effects(&self, filter: Document, options: FindOptions) -> Result<Vec<RecordedEffect>, InboxError> {
        let effects: Vec<StoredEffect> = self.find(EFFECTS, filter, options).await?;
        effects.into_iter().map(StoredEffect::read).collect()
    }

    /// Adds up the rows. Where many are held that takes longer than a lease lasts: it is held on to meanwhile, last at
    /// the moment in the answer.
    async fn totals_while_held(
        &self,
        generation: Generation,
        term: i64,
        mut kept_at: Instant,
    ) -> Result<(Totals, Instant), InboxError> {
        let mut totals = pin!(timeout(TOTALS_WITHIN, self.count(generation)));
        loop {
            tokio::select! {
                totals = &mut totals => {
                    let too_late = |_| InboxError::Away("its rows were not counted in good time".to_owned());
                    return Ok((totals.map_err(too_late)??, kept_at));
                }
                () = sleep(self.lease.lasts() / 3) => {
                    let renewed_at = Instant::now();
                    if self.lease.renew(term).await.map_err(write_error)?.is_none() {
                        return Err(InboxError::Away("another process began a term meanwhile".to_owned()));
                    }
                    kept_at = renewed_at;
                }
            }
        }
    }

    async fn count(&self, generation: Generation) -> Result<Totals, InboxError> {
        let (applying, performing, waiting) = try_join3(
            self.sums(INBOX, rows::count_held(generation, Work::Applying)),
            self.sums(INBOX, rows::count_held(generation, Work::Performing)),
            self.sums(EFFECTS, effects::count_waiting()),
        )
        .await?;
        let (applying, behind) = rows::read_counts(&applying)?;
        let (performing, _) = rows::read_counts(&performing)?;
        let effects_waiting = waiting.first().map_or(0, |waiting| rows::counted(waiting, "effects_waiting"));
        Ok(Totals { behind, applying, performing, effects_waiting })
    }

    async fn sums(&self, collection: &str, pipeline: [Document; 2]) -> Result<Vec<Document>, InboxError> {
        let collection = self.database.collection::<Document>(collection);
        let sums = async {
            let mut sums = collection.aggregate(pipeline).max_time(TOTALS_WITHIN).await?;
            let mut all = Vec::new();
            while sums.advance().await? {
                all.push(sums.deserialize_current()?);
            }
            Ok(all)
        };
        sums.await.map_err(|error: mongodb::error::Error| inbox_error(store_error(&error)))
    }

    async fn present_now(&self) -> Result<Present, InboxError> {
        let found = self.server.answer(self.subscriber().find_one(doc! { "_id": ONLY })).await;
        present(&schema::read(found.map_err(read_error)?.ok_or_else(gone)?)?)
    }

    /// Takes the lease when it can be had. Whoever has a transaction under way is let finish it, and has the lease then;
    /// one that nobody goes on with is ended.
    async fn acquire(&self) -> Result<Document, InboxError> {
        self.clear_way().await;
        for _ in 0..3 {
            let free = match self.lease.look().await.map_err(read_error)? {
                Seen::Free(free) => free,
                Seen::Held(held) => return Err(held_by(held)),
                Seen::Absent => {
                    // Somebody dropped the database: the subscriber begins from nothing.
                    schema::prepare(&self.server, &self.database, &self.name).await?;
                    continue;
                }
            };
            let with = doc! { "session": self.session_id.clone() };
            match self.lease.acquire(&free, with).await.map_err(write_error)? {
                Acquired::Now(document) => return Ok(document),
                Acquired::Held(held) => return Err(held_by(held)),
                Acquired::Blocked => self.end_abandoned(&free).await?,
                Acquired::Absent => {}
            }
        }
        Err(InboxError::Away("a transaction that nobody goes on with holds it".to_owned()))
    }

    /// Ends the transaction that the last holder left open. Not before it has had the time that a transaction may take:
    /// as long its holder is at work, and holds on to the lease with the commit.
    async fn end_abandoned(&self, last: &Free) -> Result<(), InboxError> {
        // Its statements, and its commit.
        let ends_in = (self.server.answer_within() * 2).saturating_sub(last.over_for);
        if !last.own && !ends_in.is_zero() {
            let by = last.document.get_str("holder").unwrap_or("another process").to_owned();
            return Err(InboxError::Held { by, ends_in });
        }
        for of_whom in ["session", OPERATOR] {
            if let Ok(session) = last.document.get_document(of_whom) {
                self.end_session(session).await;
            }
        }
        Ok(())
    }

    /// Says whose session an operator's transaction is of, so that others can end it when nobody goes on with it. Waits
    /// until nobody is writing; when somebody is all the time nothing was changed.
    async fn announce(&self, writer: &mut Writer) -> Result<(), String> {
        self.clear_way_of(writer).await;
        let subscriber = self.subscriber();
        let fields = vec![doc! { "$set": { OPERATOR: { "$literal": self.session_id.clone() } } }];
        let announced = subscriber.find_one_and_update(doc! { "_id": ONLY }, fields);
        let announced = announced.max_time(blocked_after(&self.server));
        let announced = self.server.answer(async { announced.await.map(drop) });
        announced.await.map_err(|failed| failed.into_error().to_string())
    }

    /// Ends the last transaction of an operator in another process, which may have been frozen in the middle of it. Where
    /// somebody goes on with it, it is begun once more.
    async fn end_operators(&self) {
        let Ok(Some(document)) = self.server.answer(self.subscriber().find_one(doc! { "_id": ONLY })).await else {
            return;
        };
        if let Ok(session) = document.get_document(OPERATOR)
            && *session != self.session_id
        {
            self.end_session(session).await;
        }
    }

    /// Ends a transaction that nobody goes on with: until then it holds the subscriber's document, a minute perhaps.
    /// Where that is not allowed the minute has to pass.
    async fn end_session(&self, session: &Document) {
        let kill = doc! { "killSessions": [session.clone()] };
        if let Err(failed) = self.server.answer(self.database.run_command(kill)).await {
            let error = failed.into_error();
            tracing::debug!(%error, subscriber = self.name, "a session was not ended");
        }
    }

    /// At most `limit` orders behind `after` with effects that wait, in the order of their ids; none when there are none.
    async fn orders_waiting(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, InboxError> {
        let mut options = first(doc! { "order": 1 }, limit);
        options.projection = Some(doc! { "_id": 0, "order": 1 });
        let effects: Vec<OfOrder> = self.find(EFFECTS, effects::waiting_after(after), options).await?;
        let mut orders = effects.iter().map(OfOrder::read).collect::<Result<Vec<_>, _>>()?;
        orders.dedup();
        Ok(orders)
    }

    /// Those of these orders whose lane for performing is held.
    async fn performing_held(
        &self,
        generation: Generation,
        orders: &[OrderId],
    ) -> Result<HashSet<OrderId>, InboxError> {
        let only_id = FindOptions::builder().projection(doc! { "_id": 1 }).build();
        let held: Vec<RowId> = self.find(INBOX, rows::performing_held(generation, orders), only_id).await?;
        held.iter().map(|row| rows::order_of(&row._id)).collect()
    }

    async fn all_effects(&self, orders: &[OrderId], limit: usize) -> Result<Vec<RecordedEffect>, InboxError> {
        let mut all = Vec::new();
        for order in orders {
            let options = first(doc! { "version": 1, "index": 1 }, limit.max(1));
            all.extend(self.find_effects(effects::of_order(*order), options).await?);
        }
        Ok(all)
    }

    /// The first effects of these orders that have no outcome, and of some orders more. Usually an order has one, and
    /// they come at once; of those with many no more are sent than are wanted.
    async fn waiting_effects(&self, orders: &[OrderId], limit: usize) -> Result<Vec<RecordedEffect>, InboxError> {
        let at_once = orders.len().saturating_add(limit.max(1));
        let options = first(effects::by_order(), at_once);
        let mut found = self.find_effects(effects::waiting_of(orders), options).await?;
        if found.len() < at_once {
            return Ok(found);
        }
        // Some of the last order's may be missing, and all of those behind it.
        let Some(last) = found.last().map(|effect| effect.effect.order) else { return Ok(found) };
        found.retain(|effect| effect.effect.order < last);
        let rest: Vec<_> = orders.iter().copied().filter(|order| *order >= last).collect();
        for some in rest.chunks(LOADS_AT_ONCE) {
            let loads: Vec<_> = some.iter().map(|order| self.first_waiting(*order, limit)).collect();
            found.extend(try_join_all(loads).await?.into_iter().flatten());
        }
        Ok(found)
    }

    async fn first_waiting(&self, order: OrderId, limit: usize) -> Result<Vec<RecordedEffect>, InboxError> {
        let options = first(doc! { "version": 1, "index": 1 }, limit.max(1));
        self.find_effects(effects::waiting_of(&[order]), options).await
    }

    /// The orders whose row is not as it was read.
    async fn changed(&self, transaction: &Transaction) -> Result<Vec<OrderId>, InboxError> {
        let orders: Vec<_> = transaction.rows.iter().map(|write| write.row.order).collect();
        let stored = self.rows(transaction.generation, orders).await?;
        let stored: HashMap<_, _> = stored.into_iter().map(|row| (row.order, row.written_by)).collect();
        let changed = transaction.rows.iter().filter(|write| {
            let written_by = stored.get(&write.row.order).copied().flatten();
            written_by != write.was_written_by
        });
        Ok(changed.map(|write| write.row.order).collect())
    }
}

#[async_trait]
impl Inbox for MongoInbox {
    async fn begin(&self) -> Result<Begun, InboxError> {
        let called_at = Instant::now();
        let subscriber = schema::read(self.acquire().await?)?;
        let (present, progress) = (present(&subscriber)?, progress(&subscriber)?);
        let (totals, kept_at) = self.totals_while_held(present.generation, subscriber.term, called_at).await?;
        Ok(Begun {
            term: read_term(subscriber.term)?,
            lease: Some(self.lease.lasts()),
            held_after: kept_at - called_at,
            present,
            unclean: subscriber.unclean,
            totals,
            progress,
        })
    }

    async fn renew(&self, term: Term) -> Result<Renewed, InboxError> {
        self.clear_way().await;
        let Some(document) = self.lease.renew(stored_term(term)?).await.map_err(write_error)? else {
            return Ok(Renewed::Superseded);
        };
        Ok(Renewed::Held { lease: Some(self.lease.lasts()), present: present(&schema::read(document)?)? })
    }

    async fn release(&self, term: Term) -> Result<(), InboxError> {
        self.clear_way().await;
        self.lease.release(stored_term(term)?).await.map_err(write_error)
    }

    async fn present(&self) -> Result<Present, InboxError> {
        self.present_now().await
    }

    async fn totals(&self, generation: Generation) -> Result<Totals, InboxError> {
        let counted = timeout(TOTALS_WITHIN, self.count(generation)).await;
        counted.map_err(|_| InboxError::Away("its rows were not counted in good time".to_owned()))?
    }

    async fn rows(&self, generation: Generation, orders: Vec<OrderId>) -> Result<Vec<Row>, InboxError> {
        self.find_rows(rows::of_orders(generation, &orders), FindOptions::default()).await
    }

    async fn due(
        &self,
        generation: Generation,
        work: Work,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, InboxError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.find_rows(rows::held_until(generation, work, "$lte", until), first(rows::by_next_attempt(work), limit))
            .await
    }

    async fn next_due(
        &self,
        generation: Generation,
        work: Work,
        after: Timestamp,
    ) -> Result<Option<Timestamp>, InboxError> {
        let later = rows::held_until(generation, work, "$gt", after);
        let next = self.find_rows(later, first(rows::by_next_attempt(work), 1)).await?;
        Ok(next.first().and_then(|row| rows::lane_of(row, work).hold()?.next_attempt_at))
    }

    async fn held(
        &self,
        generation: Generation,
        work: Work,
        states: &[HoldState],
        after: Option<OrderId>,
        limit: usize,
    ) -> Result<Vec<Row>, InboxError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut held = Vec::new();
        for state in states {
            let filter = rows::held_after(generation, work, *state, after);
            held.extend(self.find_rows(filter, first(rows::by_id(), limit)).await?);
        }
        held.sort_by_key(|row| row.order);
        // Its state changed between two questions: the later answer is newer.
        held.reverse();
        held.dedup_by_key(|row| row.order);
        held.reverse();
        held.truncate(limit);
        Ok(held)
    }

    async fn documents(&self, generation: Generation, keys: Vec<DocumentKey>) -> Result<Vec<Option<Body>>, InboxError> {
        let ids: Vec<_> = keys.iter().map(|key| documents::id(generation, key)).collect();
        let found: Vec<StoredDocument> =
            self.find(DOCUMENTS, documents::with_ids(&ids), FindOptions::default()).await?;
        let bodies: HashMap<_, Body> =
            found.into_iter().map(|document| (document._id, Body::from(document.body))).collect();
        Ok(ids.iter().map(|id| bodies.get(id).cloned()).collect())
    }

    async fn commit(&self, transaction: Arc<Transaction>) -> Result<Committed, InboxError> {
        let commands = statements::commands(&self.lease, &transaction)?;
        let mut writer = self.writer.lock().await;
        let (mut refusal, mut perhaps) = (String::new(), false);
        let since = Instant::now();
        for attempt in 0_u32.. {
            if attempt > 0 && since.elapsed() > AGAIN_FOR {
                break;
            }
            sleep(AGAIN_AFTER * attempt.min(AGAIN_GROWS_MAX)).await;
            // An earlier attempt may be stored, whatever is wrong with this one.
            let perhaps_not = |error: InboxError| if perhaps { InboxError::Unknown(error.to_string()) } else { error };
            if transaction.term.is_none()
                && let Err(why) = self.announce(&mut writer).await
            {
                refusal = why;
                continue;
            }
            match self.attempt(&mut writer, &commands).await.map_err(perhaps_not)? {
                Attempt::Written => return Ok(Committed::Written),
                Attempt::Refused(Refused::Superseded) => return Ok(Committed::Superseded),
                Attempt::Refused(Refused::Failed(error)) => return Err(perhaps_not(error)),
                Attempt::Refused(Refused::Again(why)) => refusal = why,
                Attempt::Refused(Refused::Changed) => {
                    let changed = self.changed(&transaction).await.map_err(perhaps_not)?;
                    if !changed.is_empty() {
                        return Ok(Committed::Fenced(changed));
                    }
                    // Who changed them is not yet on a majority's disks.
                    refusal = "rows are being written by somebody else".to_owned();
                }
                Attempt::Lost(why) => {
                    perhaps = true;
                    refusal = why;
                }
            }
        }
        self.end_operators().await;
        Err(if perhaps { InboxError::Unknown(refusal) } else { InboxError::Away(refusal) })
    }

    async fn waiting(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, InboxError> {
        let generation = self.present_now().await?.generation;
        let (mut waiting, mut after) = (Vec::new(), after);
        while waiting.len() < limit {
            let orders = self.orders_waiting(after, limit).await?;
            let Some(last) = orders.last() else { break };
            after = Some(*last);
            let held = self.performing_held(generation, &orders).await?;
            waiting.extend(orders.into_iter().filter(|order| !held.contains(order)));
        }
        waiting.truncate(limit);
        Ok(waiting)
    }

    async fn effects(
        &self,
        orders: Vec<OrderId>,
        which: Which,
        limit: usize,
    ) -> Result<Vec<RecordedEffect>, InboxError> {
        let by_order = match which {
            Which::All => self.all_effects(&orders, limit).await?,
            Which::Waiting => self.waiting_effects(&orders, limit).await?,
        };
        Ok(effects::first_of_each(&orders, by_order, limit))
    }

    async fn discards(&self, order: OrderId) -> Result<Vec<Discard>, InboxError> {
        let oldest_first = FindOptions::builder().sort(discards::oldest_first()).build();
        let found: Vec<StoredDiscard> = self.find(DISCARDS, discards::of_order(order), oldest_first).await?;
        found.iter().map(StoredDiscard::read).collect()
    }

    async fn set_paused(&self, paused: bool) -> Result<(), InboxError> {
        self.clear_way().await;
        let subscriber = self.subscriber();
        let set = subscriber.update_one(doc! { "_id": ONLY }, doc! { "$set": { "paused": paused } });
        let set = self.server.answer(set).await.map_err(write_error)?;
        if set.matched_count == 0 { Err(gone()) } else { Ok(()) }
    }
}

/// The first so many.
fn first(sort: Document, limit: usize) -> FindOptions {
    FindOptions::builder().sort(sort).limit(i64::try_from(limit).unwrap_or(i64::MAX)).build()
}

fn held_by(held: Held) -> InboxError {
    InboxError::Held { by: held.by, ends_in: held.ends_in }
}

fn gone() -> InboxError {
    InboxError::Damaged("it does not say whose it is".to_owned())
}

fn stored_term(term: Term) -> Result<i64, InboxError> {
    i64::try_from(term.0).map_err(|_| InboxError::Damaged(format!("there is no term {}", term.0)))
}

fn read_term(term: i64) -> Result<Term, InboxError> {
    u64::try_from(term).map(Term).map_err(|_| InboxError::Damaged(format!("it is in the term {term}")))
}

fn present(subscriber: &Subscriber) -> Result<Present, InboxError> {
    let revision = u64::try_from(subscriber.revision)
        .map_err(|_| InboxError::Damaged(format!("its revision is {}", subscriber.revision)))?;
    Ok(Present { generation: Generation(subscriber.generation), paused: subscriber.paused, revision })
}

fn progress(subscriber: &Subscriber) -> Result<Option<Progress>, InboxError> {
    let Some(position) = &subscriber.position else { return Ok(None) };
    let unreadable = |why: String| InboxError::Damaged(format!("its position cannot be read: {why}"));
    let position = serde_json::from_str(position).map_err(|error| unreadable(error.to_string()))?;
    let after = subscriber.scan_after.as_deref().map(str::parse).transpose();
    let after = after.map_err(|_| unreadable("the key of the scan".to_owned()))?;
    Ok(Some(Progress { position, catching_up: subscriber.scanning.then_some(CatchingUp { after }) }))
}

/// For what changed nothing, or may be done again.
fn read_error(failed: Failed) -> InboxError {
    inbox_error(failed.into_error())
}

/// For what wrote something.
fn write_error(failed: Failed) -> InboxError {
    match failed {
        Failed::NotDone(error) => inbox_error(error),
        Failed::Unknown(error) => InboxError::Unknown(error.to_string()),
    }
}

fn inbox_error(error: StoreError) -> InboxError {
    match error {
        StoreError::Away(text) => InboxError::Away(text),
        StoreError::Full(text) => InboxError::Full(text),
        StoreError::Damaged(text) => InboxError::Damaged(text),
    }
}
