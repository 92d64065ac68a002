//! The collections of a subscriber's database.

use std::time::Duration;

use actors::inbox::InboxError;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::options::ReadConcern;
use mongodb::{Collection, Database, IndexModel};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::{inbox_error, read_error, write_error};
use crate::mongo::error::{self, NAMESPACE_EXISTS, store_error};
use crate::mongo::server::Server;

/// The shape of these collections; a database of another shape is refused.
const SCHEMA: i64 = 1;

/// How long indexes may take to be made: over some ten million documents.
const INDEXES_WITHIN: Duration = Duration::from_secs(10 * 60);

/// Holds one document: whose the database is, its term, and how far the log was followed.
pub(super) const SUBSCRIBER: &str = "subscriber";
/// The `_id` of that document.
pub(super) const ONLY: &str = "subscriber";
/// The field of that document with the session of the operator's transaction that was begun last.
pub(super) const OPERATOR: &str = "operator";
/// A document an order: `_id` its generation and id.
pub(super) const INBOX: &str = "inbox";
/// `_id` is generation, collection and id; `body` the text.
pub(super) const DOCUMENTS: &str = "documents";
/// `_id` is order and effect; those without an outcome have `waiting`.
pub(super) const EFFECTS: &str = "effects";
/// What operators decided: `_id` is order, transaction and place in it; `body` the rest as JSON.
pub(super) const DISCARDS: &str = "discards";

/// What the one document of [`SUBSCRIBER`] says beside the lease.
#[derive(Debug, Deserialize)]
pub(super) struct Subscriber {
    pub(super) schema: i64,
    pub(super) name: String,
    pub(super) term: i64,
    pub(super) generation: u32,
    pub(super) paused: bool,
    /// As JSON.
    pub(super) position: Option<String>,
    pub(super) scanning: bool,
    pub(super) scan_after: Option<String>,
    /// Absent before the first transaction of an operator.
    #[serde(default)]
    pub(super) revision: i64,
    /// Whether the term before was not given up ([`Lease::acquire`](crate::mongo::lease::Lease::acquire)).
    #[serde(default)]
    pub(super) unclean: bool,
}

/// Makes what is missing, and checks whose the database is.
pub(super) async fn prepare(server: &Server, database: &Database, name: &str) -> Result<(), InboxError> {
    let subscriber = subscriber(server, database, name).await?;
    if subscriber.schema != SCHEMA {
        let shape = subscriber.schema;
        return Err(InboxError::Damaged(format!("its collections are of shape {shape}, this docket knows {SCHEMA}")));
    }
    if subscriber.name != name {
        let owner = subscriber.name;
        return Err(InboxError::Damaged(format!("it belongs to the subscriber {owner}, not to {name}")));
    }
    // Whatever a transaction writes to is there: none has to make a collection.
    for collection in [DOCUMENTS, DISCARDS] {
        let made = server.answer(async {
            match database.create_collection(collection).await {
                Err(error) if error::code(&error) == Some(NAMESPACE_EXISTS) => Ok(()),
                made => made,
            }
        });
        made.await.map_err(write_error)?;
    }
    for (collection, indexes) in [(INBOX, inbox_indexes()), (EFFECTS, vec![waiting_index()])] {
        make_indexes(server, &database.collection(collection), indexes).await?;
    }
    Ok(())
}

/// Makes those that are missing. Over many documents that takes longer than an answer may: it is waited for while the
/// server answers otherwise.
async fn make_indexes(
    server: &Server,
    collection: &Collection<Document>,
    indexes: Vec<IndexModel>,
) -> Result<(), InboxError> {
    let until = Instant::now() + INDEXES_WITHIN;
    while Instant::now() < until {
        let made = timeout(server.answer_within(), collection.create_indexes(indexes.clone()));
        if let Ok(made) = made.await {
            return made.map(drop).map_err(|error| inbox_error(store_error(&error)));
        }
        let answers = collection.find_one(doc! {}).projection(doc! { "_id": 1 });
        server.answer(answers).await.map_err(read_error)?;
    }
    Err(InboxError::Away("its indexes were not made in good time".to_owned()))
}

/// The document that says whose the database is, made by the first who opens it.
async fn subscriber(server: &Server, database: &Database, name: &str) -> Result<Subscriber, InboxError> {
    let subscribers = database.collection::<Document>(SUBSCRIBER);
    let only = || doc! { "_id": ONLY };
    let mut found = server.answer(subscribers.find_one(only())).await.map_err(read_error)?;
    if found.is_none() {
        let made = subscribers.update_one(only(), doc! { "$setOnInsert": new(name) }).upsert(true);
        let made = server.answer(async {
            match made.await {
                Err(error) if error::is_duplicate_key(&error) => Ok(()),
                made => made.map(drop),
            }
        });
        made.await.map_err(write_error)?;
        // Who lost may be here before a majority has what the winner wrote.
        let find = subscribers.find_one(only()).read_concern(ReadConcern::linearizable());
        found = server.answer(find.max_time(server.answer_within())).await.map_err(read_error)?;
    }
    read(found.ok_or_else(|| InboxError::Damaged("it does not say whose it is".to_owned()))?)
}

pub(super) fn read(document: Document) -> Result<Subscriber, InboxError> {
    mongodb::bson::deserialize_from_document(document)
        .map_err(|error| InboxError::Damaged(format!("it does not say whose it is: {error}")))
}

fn new(name: &str) -> Document {
    doc! {
        "schema": SCHEMA,
        "name": name,
        "term": 0_i64,
        "holder": null,
        "until": DateTime::from_millis(0),
        "generation": 0_i64,
        "paused": false,
        "position": null,
        "scanning": false,
        "scan_after": null,
        "revision": 0_i64,
    }
}

/// For the lanes that are not ready, which are few: found by the time of their next attempt, and in each state in the order
/// of their ids. A row whose lane is ready is in none.
fn inbox_indexes() -> Vec<IndexModel> {
    let of_lane = |lane: &str| {
        let held = doc! { format!("{lane}.state"): { "$exists": true } };
        let by_time = doc! { "generation": 1, format!("{lane}.next_attempt_at"): 1 };
        let by_state = doc! { "generation": 1, format!("{lane}.state"): 1, "_id": 1 };
        [index(&format!("{lane}_held"), by_time, held.clone()), index(&format!("{lane}_by_state"), by_state, held)]
    };
    ["applying", "performing"].into_iter().flat_map(of_lane).collect()
}

/// For the effects that have no outcome yet: found by order, and counted.
fn waiting_index() -> IndexModel {
    index("waiting", doc! { "waiting": 1, "order": 1 }, doc! { "waiting": true })
}

fn index(name: &str, keys: Document, only: Document) -> IndexModel {
    let options = mongodb::options::IndexOptions::builder().name(name.to_owned()).partial_filter_expression(only);
    IndexModel::builder().keys(keys).options(options.build()).build()
}

#[cfg(test)]
mod tests {
    use actors::clock::Timestamp;
    use actors::inbox::{Generation, HoldState, Work};
    use actors::order::OrderId;
    use mongodb::Client;

    use super::super::{effects, rows};
    use super::*;
    use crate::mongo::server::Settings;

    /// The stages of a plan, from the one that gives the documents to those that find them.
    fn stages(plan: &Document) -> Vec<String> {
        let stage = plan.get_str("stage").expect("a stage").to_owned();
        let inner = plan.get_document("inputStage").map(stages).unwrap_or_default();
        [vec![stage], inner].concat()
    }

    /// However many rows and effects there are, each query goes to those it wants, and sorts nothing.
    #[tokio::test]
    async fn every_query_finds_its_documents_by_an_index() {
        let database = servers::MongoDatabase::new();
        let server = Server::new(&Settings::new(database.uri())).await.expect("a server");
        let database = Client::with_uri_str(database.uri()).await.expect("a client").database(database.name());
        prepare(&server, &database, "test").await.expect("collections");
        let (now, order) = (Timestamp::from_millis(1_795_000_000_000), OrderId::generate());
        let mut queries = vec![
            (EFFECTS, effects::waiting_after(Some(order)), doc! { "order": 1 }),
            (EFFECTS, effects::waiting_of(&[order, OrderId::generate()]), effects::by_order()),
            (EFFECTS, effects::count_waiting()[0].get_document("$match").expect("a filter").clone(), doc! {}),
        ];
        for work in [Work::Applying, Work::Performing] {
            for comparison in ["$lte", "$gt"] {
                let held = rows::held_until(Generation(0), work, comparison, now);
                queries.push((INBOX, held, rows::by_next_attempt(work)));
            }
            queries.push((INBOX, rows::held(Generation(0), work), doc! {}));
            for state in HoldState::ALL {
                queries.push((INBOX, rows::held_after(Generation(0), work, state, Some(order)), rows::by_id()));
            }
        }
        for (collection, filter, sort) in queries {
            let find = doc! { "find": collection, "filter": filter.clone(), "sort": sort.clone() };
            let explained = database.run_command(doc! { "explain": find }).await.expect("a plan");
            let planner = explained.get_document("queryPlanner").expect("a plan");
            let plan = planner.get_document("winningPlan").expect("a plan");
            assert_eq!(stages(plan), ["FETCH", "IXSCAN"], "{collection}: {filter}");
            let of_state = sort == rows::by_id();
            assert!(!of_state || plan.to_string().contains("_by_state"), "{collection}: {filter}: {plan}");
        }
    }
}
