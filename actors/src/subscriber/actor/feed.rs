//! What the actor reads of the log: its commits, or only its heads, and the scan of all of it when there is no position.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use actix::Context;
use tokio::time::sleep;

use super::{Life, Source, SubscriberActor};
use crate::commit::{Commit, CommitKey};
use crate::event_store::StoreError;
use crate::history::{FollowHeads, Head, History};
use crate::log::{Follow, From, LogError, Position};
use crate::subscriber::engine::{Engine, Input};

/// Commits that are taken from the log at once.
const COMMITS_AT_ONCE: usize = 256;

/// Where it reads.
#[derive(Default)]
pub(super) struct Feed {
    /// The open log, while nobody waits for what comes next in it.
    follow: Option<Open>,
    pub(super) position: Option<Position>,
    scan: Option<Scan>,
    /// How many scans were begun.
    scans: u32,
    pub(super) trouble: Option<String>,
}

/// An open log.
enum Open {
    Commits(Box<dyn Follow>),
    Heads(Box<dyn FollowHeads>),
}

/// What it brought.
enum Brought {
    Commits(Vec<Arc<Commit>>),
    Heads(Vec<Head>),
}

struct Scan {
    /// Which one: what an earlier one still brings says nothing about how far this one is.
    number: u32,
    after: Option<CommitKey>,
    under_way: bool,
}

impl Feed {
    pub(super) fn begin_scan(&mut self, after: Option<CommitKey>) {
        self.scans += 1;
        self.scan = Some(Scan { number: self.scans, after, under_way: false });
    }
}

impl Open {
    async fn next(&mut self, max: usize) -> Result<Brought, LogError> {
        match self {
            Self::Commits(follow) => follow.next(max).await.map(Brought::Commits),
            Self::Heads(follow) => follow.next(max).await.map(Brought::Heads),
        }
    }

    fn position(&self) -> Position {
        match self {
            Self::Commits(follow) => follow.position(),
            Self::Heads(follow) => follow.position(),
        }
    }

    fn is_wanted(&self, engine: &Engine) -> bool {
        match self {
            Self::Commits(_) => engine.wants_commits(),
            Self::Heads(_) => engine.wants_heads(),
        }
    }
}

impl Brought {
    fn input(self, position: Position) -> Input {
        match self {
            Self::Commits(commits) => Input::Delivered(commits, position),
            Self::Heads(heads) => Input::Heads(heads, position),
        }
    }
}

impl SubscriberActor {
    pub(super) fn open(&mut self, after: Duration, ctx: &mut Context<Self>) {
        let (name, source, history) = (self.name, self.ports.source.clone(), self.ports.history.clone());
        let position = self.feed.position.clone();
        self.spawn(
            async move {
                sleep(after).await;
                open(name, &source, &*history, position).await
            },
            |act, opened, ctx| match opened {
                Ok((follow, anew)) => act.opened(follow, anew, ctx),
                Err(error) => act.feed_failed(&error, ctx),
            },
            ctx,
        );
    }

    fn opened(&mut self, follow: Open, anew: bool, ctx: &mut Context<Self>) {
        self.failures = 0;
        self.feed.trouble = None;
        let position = follow.position();
        self.feed.position = Some(position.clone());
        self.feed.follow = Some(follow);
        if anew {
            self.feed.begin_scan(None);
            self.take(Input::Opened(position), ctx);
        } else {
            self.take(Input::Tick, ctx);
        }
    }

    fn feed_failed(&mut self, error: &LogError, ctx: &mut Context<Self>) {
        tracing::warn!(subscriber = self.name, %error, "the log cannot be followed, and is opened again");
        if let LogError::NoPosition(why) = error
            && self.feed.position.take().is_some()
        {
            // Nor could it be next time.
            say_position_lost(self.name, why);
        }
        self.feed.trouble = Some(error.to_string());
        self.publish();
        let wait = self.retry_after();
        self.open(wait, ctx);
    }

    pub(super) fn read_on(&mut self, ctx: &mut Context<Self>) {
        let Life::Active(active) = &self.life else { return };
        let (engine, feed) = (&active.engine, &mut self.feed);
        let follow = feed.follow.take_if(|follow| follow.is_wanted(engine));
        let scan = feed.scan.as_mut().filter(|scan| !scan.under_way && engine.wants_commits());
        let scan = scan.map(|scan| {
            scan.under_way = true;
            (scan.number, scan.after)
        });
        if let Some(follow) = follow {
            self.follow(follow, ctx);
        }
        if let Some((number, after)) = scan {
            self.scan(number, after, Duration::ZERO, ctx);
        }
    }

    fn follow(&mut self, mut follow: Open, ctx: &mut Context<Self>) {
        self.spawn(
            async move {
                let brought = follow.next(COMMITS_AT_ONCE).await;
                (follow, brought)
            },
            |act, (follow, brought), ctx| act.followed(follow, brought, ctx),
            ctx,
        );
    }

    fn followed(&mut self, follow: Open, brought: Result<Brought, LogError>, ctx: &mut Context<Self>) {
        match brought {
            Ok(brought) => {
                let position = follow.position();
                self.feed.position = Some(position.clone());
                self.feed.follow = Some(follow);
                self.take(brought.input(position), ctx);
            }
            Err(error) => self.feed_failed(&error, ctx),
        }
    }

    fn scan(&mut self, number: u32, after: Option<CommitKey>, wait: Duration, ctx: &mut Context<Self>) {
        let history = self.ports.history.clone();
        self.spawn(
            async move {
                sleep(wait).await;
                history.scan(after, COMMITS_AT_ONCE).await
            },
            move |act, commits, ctx| {
                if act.feed.scan.as_ref().is_some_and(|scan| scan.number == number) {
                    act.scanned(number, after, commits, ctx);
                }
            },
            ctx,
        );
    }

    fn scanned(
        &mut self,
        number: u32,
        after: Option<CommitKey>,
        commits: Result<Vec<Arc<Commit>>, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        match commits {
            Ok(commits) => match commits.last().map(|commit| commit.key()) {
                Some(last) => {
                    self.feed.scan = Some(Scan { number, after: Some(last), under_way: false });
                    self.take(Input::Scanned(commits), ctx);
                }
                None => {
                    self.feed.scan = None;
                    self.take(Input::ScanEnded, ctx);
                }
            },
            Err(error) => {
                tracing::warn!(subscriber = self.name, %error, "the log cannot be scanned, and is tried again");
                let wait = self.retry_after();
                self.scan(number, after, wait, ctx);
            }
        }
    }
}

/// The open log, and whether it was opened at its end for want of a position.
async fn open(
    name: &str,
    source: &Source,
    history: &dyn History,
    position: Option<Position>,
) -> Result<(Open, bool), LogError> {
    if let Some(position) = position {
        match open_at(source, history, From::Position(position)).await {
            Ok(follow) => return Ok((follow, false)),
            Err(LogError::NoPosition(why)) => {
                say_position_lost(name, &why);
            }
            Err(error @ LogError::Store(_)) => return Err(error),
        }
    }
    Ok((open_at(source, history, From::Now).await?, true))
}

fn say_position_lost(subscriber: &str, why: &dyn Display) {
    tracing::error!(subscriber, %why, "the position in the log is lost: the whole log is read again");
}

async fn open_at(source: &Source, history: &dyn History, from: From) -> Result<Open, LogError> {
    match source {
        Source::Log(log) => log.follow(from).await.map(Open::Commits),
        Source::Broker => history.follow(from).await.map(Open::Heads),
    }
}
