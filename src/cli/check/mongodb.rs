//! A MongoDB deployment: whether it does what docket's promises rest on. Each thing is done for real, in a collection of
//! its own, which is removed afterwards whatever was found.

use std::time::{Duration, Instant};

use actors::clock::{Clock, SystemClock};
use futures_util::{StreamExt, TryStreamExt};
use mongodb::bson::{Document, doc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::{ChangeStreamEvent, ResumeToken};
use mongodb::error::{Error, TRANSIENT_TRANSACTION_ERROR};
use mongodb::options::ReadConcern;
use mongodb::{ClientSession, Collection, Database};
use uuid::Uuid;

use super::{Finding, bad, good, warning};
use crate::config::{Mongodb, millis};
use crate::mongo::error::{code, is_duplicate_key};
use crate::mongo::inbox::subscriber_database;
use crate::mongo::server::Hello;
use crate::mongo::unusable::{Unusable, answered, unusable};
use crate::mongo::{ConnectError, Server};

/// A clock that differs by more is worth a word: moments in events and in leases' log lines would not agree.
const CLOCKS_DIFFER_MS: i64 = 1_000;
/// How a server says that another transaction was first.
const WRITE_CONFLICT: i32 = 112;

/// What was found, or why it was not found.
type Found = Result<String, Unusable>;

/// Looks at everything, in the order service's database, or in that of a subscriber whose process has no other. What
/// stands on something that is not there is left out.
pub(super) async fn look(config: &Mongodb, subscriber: Option<&str>) -> Vec<Finding> {
    let (server, hello) = match reach(config).await {
        Ok(reached) => reached,
        Err(why) => return vec![bad("mongodb.uri", format!("{}: {why}", config.uri))],
    };
    let mut findings = vec![good("mongodb.uri", format!("{} answers: server version {}", config.uri, hello.version))];
    if let Some(unfit) = hello.unfit() {
        findings.push(bad("replica set", unfit.to_string()));
        return findings;
    }
    findings.push(good("replica set", members(&hello)));
    findings.push(clock(&server).await);
    let place = Place::new(config, &server, subscriber);
    place.look(&mut findings).await;
    findings
}

async fn reach(config: &Mongodb) -> Result<(Server, Hello), Unusable> {
    let settings = config.settings();
    let server = Server::new(&settings).await.map_err(|ConnectError::Uri(error)| unusable(&error))?;
    // A wrong password is told apart from a server that is away.
    answered(settings.answer_within, server.database("admin").run_command(doc! { "ping": 1 })).await?;
    let hello = server.hello().await.map_err(|error| Unusable::Away(error.to_string()))?;
    Ok((server, hello))
}

fn members(hello: &Hello) -> String {
    let set = hello.set_name.as_ref().map_or_else(|| "sharded".to_owned(), Clone::clone);
    let primary = hello.primary.as_ref().map(|primary| format!(", primary {primary}"));
    format!("{set}{}", primary.unwrap_or_default())
}

/// By how much the server's clock differs from ours, as well as one round trip can tell.
async fn clock(server: &Server) -> Finding {
    let asked = Instant::now();
    let hello = match server.hello().await {
        Ok(hello) => hello,
        Err(error) => return bad("clock", error.to_string()),
    };
    let round_trip = i64::try_from(asked.elapsed().as_millis()).unwrap_or(i64::MAX);
    let differs = hello.local_time.timestamp_millis() + round_trip / 2 - SystemClock.now().as_millis();
    clocks(differs, round_trip)
}

fn clocks(differs: i64, round_trip: i64) -> Finding {
    let whose = if differs < 0 { "behind" } else { "ahead of" };
    let detail = format!("the server's is {} ms {whose} ours, give or take {} ms", differs.abs(), round_trip / 2);
    if differs.abs() > CLOCKS_DIFFER_MS { warning("clock", detail) } else { good("clock", detail) }
}

/// A collection of this check's own.
struct Place {
    server: Server,
    database: Database,
    /// What else must be allowed.
    others: String,
    scratch: Collection<Document>,
    within: Duration,
}

impl Place {
    fn new(config: &Mongodb, server: &Server, subscriber: Option<&str>) -> Self {
        let orders = &config.database;
        let name = subscriber.map_or_else(|| orders.clone(), |name| subscriber_database(orders, name));
        let database = server.database(&name);
        let others = format!("every subscriber NAME needs the same in {}", subscriber_database(orders, "NAME"));
        let scratch = database.collection(&format!("check_{}", Uuid::now_v7().simple()));
        Self { server: server.clone(), database, others, scratch, within: millis(config.answer_timeout_ms) }
    }

    async fn look(&self, findings: &mut Vec<Finding>) {
        let made = self.made().await;
        let there = made.is_ok();
        findings.push(finding("rights", made));
        if there {
            self.look_inside(findings).await;
        }
        // Also when nobody knows whether it was made.
        if let Err(why) = self.answered(self.scratch.drop()).await {
            findings.push(bad("rights", format!("the collection {} could not be removed: {why}", self.scratch.name())));
        }
    }

    async fn look_inside(&self, findings: &mut Vec<Finding>) {
        findings.push(finding("write concern", self.write_is_durable().await));
        findings.push(finding("duplicate key", self.duplicate_is_refused().await));
        findings.push(finding("linearizable read", self.reads_linearizably().await));
        findings.push(finding("transaction", self.transacts().await));
        findings.push(finding("write conflict", self.conflict_is_told().await));
        findings.push(finding("change stream", self.stream_resumes().await));
    }

    async fn made(&self) -> Found {
        self.answered(self.database.create_collection(self.scratch.name())).await?;
        let index = mongodb::IndexModel::builder().keys(doc! { "a": 1 }).build();
        self.answered(self.scratch.create_index(index)).await?;
        Ok(format!("collections and indexes can be made in {}; {}", self.database.name(), self.others))
    }

    async fn write_is_durable(&self) -> Found {
        let asked = Instant::now();
        self.answered(self.scratch.insert_one(doc! { "_id": "first" })).await?;
        let took = asked.elapsed().as_millis();
        Ok(format!("a write was on the disks of a majority after {took} ms"))
    }

    async fn duplicate_is_refused(&self) -> Found {
        match tokio::time::timeout(self.within, self.scratch.insert_one(doc! { "_id": "first" })).await {
            Ok(Err(error)) if is_duplicate_key(&error) => Ok("a second document under a key is refused".to_owned()),
            Ok(Err(error)) => Err(unusable(&error)),
            Ok(Ok(_)) => wrong("two documents were taken under one key"),
            Err(_) => Err(self.no_answer()),
        }
    }

    async fn reads_linearizably(&self) -> Found {
        let read = self.scratch.find_one(doc! { "_id": "first" }).max_time(self.within);
        match self.answered(read.read_concern(ReadConcern::linearizable())).await? {
            Some(_) => Ok("sees what was acknowledged".to_owned()),
            None => wrong("does not see what was acknowledged"),
        }
    }

    async fn transacts(&self) -> Found {
        let mut session = self.begun().await?;
        self.answered(self.scratch.insert_one(doc! { "_id": "aborted" }).session(&mut session)).await?;
        self.answered(session.abort_transaction()).await?;
        self.answered(session.start_transaction()).await?;
        self.answered(self.scratch.insert_one(doc! { "_id": "committed" }).session(&mut session)).await?;
        self.answered(session.commit_transaction()).await?;
        let there = doc! { "_id": { "$in": ["aborted", "committed"] } };
        let found: Vec<_> = self.answered(async { self.scratch.find(there).await?.try_collect().await }).await?;
        let ids: Vec<_> = found.iter().filter_map(|document| document.get_str("_id").ok()).collect();
        match ids.as_slice() {
            ["committed"] => Ok("one that is committed is there, one that is aborted is not".to_owned()),
            other => wrong(&format!("of one committed and one aborted, there is: {other:?}")),
        }
    }

    async fn conflict_is_told(&self) -> Found {
        let (mut first, mut second) = (self.begun().await?, self.begun().await?);
        let change = doc! { "$inc": { "n": 1 } };
        let id = doc! { "_id": "first" };
        self.answered(self.scratch.update_one(id.clone(), change.clone()).session(&mut first)).await?;
        let late = self.scratch.update_one(id, change).session(&mut second);
        let late = tokio::time::timeout(self.within, late.into_future()).await;
        self.answered(first.abort_transaction()).await?;
        match late {
            Ok(Err(error)) if is_conflict(&error) => Ok("the second of two writers is told".to_owned()),
            Ok(Err(error)) => Err(unusable(&error)),
            Ok(Ok(_)) => wrong("two transactions changed one document at once"),
            Err(_) => wrong("the second of two writers is left waiting"),
        }
    }

    async fn stream_resumes(&self) -> Found {
        let mut stream = self.answered(self.scratch.watch()).await?;
        self.answered(self.scratch.insert_many([doc! { "_id": "seen" }, doc! { "_id": "later" }])).await?;
        let seen = self.until_seen(&mut stream).await?;
        drop(stream);
        let mut resumed = self.answered(self.resumed(seen.id)).await?;
        match self.next(&mut resumed).await? {
            next if key(&next) == Some("later") => Ok("shows what is written, and goes on where it was".to_owned()),
            next => wrong(&format!("went on at {:?}, and not behind what it had shown", key(&next))),
        }
    }

    /// A stream may begin a little before it was asked for: what was written earlier does no harm, what is missing would.
    async fn until_seen(
        &self,
        stream: &mut ChangeStream<ChangeStreamEvent<Document>>,
    ) -> Result<ChangeStreamEvent<Document>, Unusable> {
        loop {
            let event = self.next(stream).await?;
            match key(&event) {
                Some("seen") => return Ok(event),
                Some("later") => return Err(Unusable::Refused("showed a second write and not the first".to_owned())),
                _ => {}
            }
        }
    }

    async fn resumed(&self, token: ResumeToken) -> mongodb::error::Result<ChangeStream<ChangeStreamEvent<Document>>> {
        self.scratch.watch().resume_after(token).await
    }

    async fn next(
        &self,
        stream: &mut ChangeStream<ChangeStreamEvent<Document>>,
    ) -> Result<ChangeStreamEvent<Document>, Unusable> {
        match self.answered(async { stream.next().await.transpose() }).await? {
            Some(event) => Ok(event),
            None => Err(Unusable::Refused("it ended".to_owned())),
        }
    }

    async fn begun(&self) -> Result<ClientSession, Unusable> {
        let mut session = self.answered(self.server.client().start_session()).await?;
        self.answered(session.start_transaction()).await?;
        Ok(session)
    }

    async fn answered<T>(&self, operation: impl IntoFuture<Output = mongodb::error::Result<T>>) -> Result<T, Unusable> {
        answered(self.within, operation).await
    }

    fn no_answer(&self) -> Unusable {
        Unusable::Away(format!("no answer within {} ms", self.within.as_millis()))
    }
}

fn finding(what: &'static str, found: Found) -> Finding {
    match found {
        Ok(detail) => good(what, detail),
        Err(why) => bad(what, why.to_string()),
    }
}

fn wrong(what: &str) -> Found {
    Err(Unusable::Refused(what.to_owned()))
}

fn key(event: &ChangeStreamEvent<Document>) -> Option<&str> {
    event.document_key.as_ref().and_then(|key| key.get_str("_id").ok())
}

fn is_conflict(error: &Error) -> bool {
    error.contains_label(TRANSIENT_TRANSACTION_ERROR) && code(error) == Some(WRITE_CONFLICT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_more_than_a_second_are_worth_a_word() {
        let verdict = |differs| clocks(differs, 10).verdict();
        assert_eq!((verdict(1_000), verdict(-1_000)), ("ok   ", "ok   "));
        assert_eq!((verdict(1_001), verdict(-1_001)), ("WARN ", "WARN "));
        assert_eq!(clocks(-1_500, 10).detail, "the server's is 1500 ms behind ours, give or take 5 ms");
    }
}
