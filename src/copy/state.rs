//! A subscriber's state: its rows and documents of the present generation, its effects and discards, brought as they are and compared one
//! by one. The term begins anew, so that nothing old can write; the position stays behind.

use actors::event_store::StoreError;
use actors::inbox::{DocumentKey, InboxError, Term};
use actors::order::OrderId;
use mongodb::bson::RawDocumentBuf;
use serde::{Deserialize, Serialize};

use super::compare::{Sum, Summing};
use super::{CopyError, Copying, Source, Step, Target};
use crate::mongo::inbox::import::{self, Import, Inserted, Kind};
use crate::sqlite::SqliteInbox;
use crate::sqlite::inbox::export::{self, DiscardPlace, EffectPlace, Standing};

/// A subscriber's file.
pub(super) struct Subscriber {
    pub(super) name: String,
    pub(super) standing: Standing,
    inbox: SqliteInbox,
}

/// How far a subscriber's state is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Brought {
    pub(super) name: String,
    /// The last term in the file when this was read. With another one the file may have changed.
    pub(super) term: Term,
    behind: Behind,
    count: u64,
    /// When the copy is complete: what was read back.
    pub(super) total: Option<Total>,
}

/// What everything before is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Behind {
    Row(Option<OrderId>),
    Document(Option<(String, String)>),
    Effect(Option<EffectPlace>),
    Discard(Option<DiscardPlace>),
    All,
}

/// What a subscriber has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Its name.
    pub name: String,
    /// Whether it is to rest.
    pub paused: bool,
    /// Inbox rows: one an order.
    pub rows: u64,
    /// Documents.
    pub documents: u64,
    /// Effects that were ever asked for.
    pub effects: u64,
    /// Those of them that have no outcome: they are performed when docket runs.
    pub effects_waiting: u64,
    /// What operators decided.
    #[serde(default)]
    pub discards: u64,
    /// All of them together, as they are stored in MongoDB.
    pub sum: Sum,
}

/// Some that lie one behind another, and what is behind them.
struct Page {
    kind: Kind,
    stored: Vec<RawDocumentBuf>,
    waiting: u64,
    next: Behind,
}

impl Subscriber {
    pub(super) async fn open(source: &Source, name: &str) -> Result<Self, CopyError> {
        let failed = |error: InboxError| unreadable(name, error);
        let inbox = SqliteInbox::open(&source.directory, name).map_err(failed)?;
        let standing = inbox.standing().await.map_err(failed)?;
        Ok(Self { name: name.to_owned(), standing, inbox })
    }

    pub(super) async fn close(&self) {
        self.inbox.close().await;
    }

    pub(super) fn import(&self, target: &Target) -> Import {
        Import::new(&target.server, &target.database, &self.name)
    }

    /// What lies behind. A page without anything is the last of its kind.
    async fn page(&self, behind: &Behind) -> Result<Page, InboxError> {
        let generation = self.standing.generation;
        match behind {
            Behind::Row(after) => {
                let rows = self.inbox.rows_after(generation, *after).await?;
                let next = rows.last().map_or(Behind::Document(None), |last| Behind::Row(Some(last.order)));
                let stored = rows.iter().map(|row| import::row(generation, row)).collect::<Result<_, _>>()?;
                Ok(Page { kind: Kind::Row, stored, waiting: 0, next })
            }
            Behind::Document(after) => {
                let after = after.clone().map(|(collection, id)| DocumentKey { collection: collection.into(), id });
                let documents = self.inbox.documents_after(generation, after).await?;
                let next = documents.last().map_or(Behind::Effect(None), |(key, _)| {
                    Behind::Document(Some((key.collection.clone().into_owned(), key.id.clone())))
                });
                let stored = documents.iter().map(|(key, body)| import::document(generation, key, body));
                Ok(Page { kind: Kind::Document, stored: stored.collect::<Result<_, _>>()?, waiting: 0, next })
            }
            Behind::Effect(after) => {
                let effects = self.inbox.effects_after(*after).await?;
                let next =
                    effects.last().map_or(Behind::Discard(None), |last| Behind::Effect(Some(EffectPlace::of(last))));
                let waiting = effects.iter().filter(|effect| effect.outcome.is_none()).count() as u64;
                let stored = effects.iter().map(import::effect).collect::<Result<_, _>>()?;
                Ok(Page { kind: Kind::Effect, stored, waiting, next })
            }
            Behind::Discard(after) => {
                let discards = self.inbox.discards_after(*after).await?;
                let next = discards.last().map_or(Behind::All, |(place, _)| Behind::Discard(Some(*place)));
                let stored =
                    discards.iter().map(|(place, discard)| import::discard(discard, place.written_by, place.place));
                Ok(Page { kind: Kind::Discard, stored: stored.collect::<Result<_, _>>()?, waiting: 0, next })
            }
            Behind::All => Ok(Page { kind: Kind::Discard, stored: Vec::new(), waiting: 0, next: Behind::All }),
        }
    }
}

impl Brought {
    /// Nothing yet.
    pub(super) fn nothing(of: &Subscriber) -> Self {
        let Subscriber { name, standing, .. } = of;
        Self { name: name.clone(), term: standing.term, behind: Behind::Row(None), count: 0, total: None }
    }

    /// Whether an earlier run has brought something of it.
    pub(super) fn begun(&self) -> bool {
        self.behind != Behind::Row(None)
    }
}

/// The names of the subscribers that have a file in the folder, and the files that are nobody's.
pub(super) fn subscribers(source: &Source) -> Result<(Vec<String>, Vec<String>), CopyError> {
    export::subscribers(&source.directory)
        .map_err(|error| CopyError::Unreadable { what: "the folder".to_owned(), why: error.to_string() })
}

/// Brings what is not there yet of one subscriber.
pub(super) async fn copy(
    copying: &mut Copying<'_>,
    index: usize,
    watch: &mut dyn FnMut(Step<'_>),
) -> Result<(), CopyError> {
    let subscriber = &copying.source.subscribers[index];
    let patience = copying.target.patience;
    let import = subscriber.import(copying.target);
    if copying.progress.subscribers[index].behind == Behind::All {
        return Ok(());
    }
    let of = subscriber.inbox.count(subscriber.standing.generation).await;
    let of = of.map_err(|error| unreadable(&subscriber.name, error))?;
    watch(Step::Begins { what: &subscriber.name, of, done: copying.progress.subscribers[index].count });
    if !copying.progress.subscribers[index].begun() {
        // What an earlier run may have brought of an earlier state of the folder.
        patience.done(async || import.clear().await).await?;
    }
    if !patience.done(async || import.hold().await).await? {
        return Err(begun_there(&import));
    }
    while copying.progress.subscribers[index].behind != Behind::All {
        let page = subscriber.page(&copying.progress.subscribers[index].behind).await;
        let page = page.map_err(|error| unreadable(&subscriber.name, error))?;
        if !page.stored.is_empty()
            && let Inserted::Taken(id) = patience.done(async || import.insert(page.kind, &page.stored).await).await?
        {
            let (kind, database) = (page.kind.name(), import.database());
            return Err(CopyError::NotOurs(format!("{database} holds another {kind} {id} than the folder")));
        }
        let brought = &mut copying.progress.subscribers[index];
        brought.behind = page.next;
        brought.count += page.stored.len() as u64;
        copying.save().await?;
        watch(Step::Done(page.stored.len() as u64));
    }
    Ok(())
}

/// Reads one subscriber's state back, and says what there is, or where it differs first.
pub(super) async fn compare(
    subscriber: &Subscriber,
    target: &Target,
    watch: &mut dyn FnMut(Step<'_>),
) -> Result<Total, CopyError> {
    let import = subscriber.import(target);
    let of = subscriber.inbox.count(subscriber.standing.generation).await;
    let of = of.map_err(|error| unreadable(&subscriber.name, error))?;
    watch(Step::Begins { what: &format!("{}, read back", subscriber.name), of, done: 0 });
    let (mut counts, mut waiting) = ([0; Kind::ALL.len()], 0);
    let (mut here, mut there) = (Summing::default(), Summing::default());
    let mut behind = Behind::Row(None);
    while behind != Behind::All {
        let page = subscriber.page(&behind).await.map_err(|error| unreadable(&subscriber.name, error))?;
        let ids: Vec<&str> = page.stored.iter().map(|stored| import::id(stored)).collect();
        let found = target.patience.done(async || import.find(page.kind, &ids).await).await?;
        for (id, stored) in ids.iter().zip(&page.stored) {
            let found = found.get(*id).ok_or_else(|| differs(&import, page.kind, id, "is not there"))?;
            if found != stored {
                return Err(differs(&import, page.kind, id, "is another one there"));
            }
            here.add(&[id.as_bytes(), stored.as_bytes()]);
            there.add(&[import::id(found).as_bytes(), found.as_bytes()]);
        }
        counts[page.kind as usize] += ids.len() as u64;
        waiting += page.waiting;
        watch(Step::Done(ids.len() as u64));
        behind = page.next;
    }
    for kind in Kind::ALL {
        no_more(&import, target, kind, counts[kind as usize]).await?;
    }
    let (sum, theirs) = (here.sum(), there.sum());
    if sum != theirs {
        return Err(CopyError::Differs(format!("{} has {sum} here, {theirs} there", subscriber.name)));
    }
    let [rows, documents, effects, discards] = counts;
    let (name, paused) = (subscriber.name.clone(), subscriber.standing.paused);
    Ok(Total { name, paused, rows, documents, effects, effects_waiting: waiting, discards, sum })
}

/// Everything in the folder is there. Whether there is more is seen by counting.
async fn no_more(import: &Import, target: &Target, kind: Kind, expected: u64) -> Result<(), CopyError> {
    let (mut count, mut after) = (0, String::new());
    while let Some((more, last)) = target.patience.done(async || import.count_after(kind, &after).await).await? {
        count += more;
        after = last;
    }
    if count == expected {
        return Ok(());
    }
    let (kind, database) = (kind.name(), import.database());
    Err(CopyError::Differs(format!("{database} has {count} {kind}s, the folder {expected}")))
}

/// Lets dockets have it.
pub(super) async fn hand_over(subscriber: &Subscriber, target: &Target) -> Result<(), CopyError> {
    let import = subscriber.import(target);
    let Standing { generation, paused, unclean, .. } = subscriber.standing;
    let handed = target.patience.done(async || import.hand_over(generation, paused, unclean).await);
    if handed.await? { Ok(()) } else { Err(begun_there(&import)) }
}

fn begun_there(import: &Import) -> CopyError {
    CopyError::NotOurs(format!("a subscriber has begun to work in the database {}", import.database()))
}

fn differs(import: &Import, kind: Kind, id: &str, how: &str) -> CopyError {
    CopyError::Differs(format!("the {} {id} of {} {how}", kind.name(), import.database()))
}

fn unreadable(name: &str, error: InboxError) -> CopyError {
    CopyError::Unreadable { what: format!("{name}.db"), why: error.to_string() }
}

/// What keeps a subscriber's database from being copied into: something is there.
pub(super) async fn occupied(source: &Source, target: &Target) -> Result<Option<String>, StoreError> {
    for subscriber in &source.subscribers {
        let import = subscriber.import(target);
        if !import.is_empty().await? {
            return Ok(Some(import.database().to_owned()));
        }
    }
    Ok(None)
}
