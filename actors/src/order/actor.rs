//! The actor of one order: reads its events when it is first asked something, decides what waits together as one commit,
//! and answers when that commit is durable. One commit is under way at a time; what arrives meanwhile waits for the next.
//!
//! It holds nothing that its events do not say, so after a panic it starts from them again; only what waits, and the
//! commit under way, stay.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use super::admission::{RETRY_AFTER, not_read};
use super::error::NotDone;
use super::load::{self, Loaded, NotLoaded};
use super::shard::ShardContext;
use super::stream::{Draft, Stream, Verdict};
use super::work::{Decided, Work};
use super::{CommandError, OrderId, Version};
use crate::commit::{self, Commit, CommitId};
use crate::event_store::StoreError;
use crate::journal::actor::{Append, Told};
use crate::journal::{Said, Why};
use crate::mutant::Mutant;
use crate::supervisor::child::{Failure, Handle};

/// Asks the actor to end. `true`: it does, and takes nothing more; `false`: it is busy.
#[derive(Message)]
#[rtype(result = "bool")]
pub(super) struct Retire;

pub(super) struct OrderActor {
    id: OrderId,
    context: Rc<ShardContext>,
    child: Handle,
    life: Life,
    waiting: VecDeque<Work>,
    under_way: Option<UnderWay>,
    /// Which of `waiting` is being decided: the one to blame for a panic.
    deciding: Option<usize>,
    /// Nobody has looked into the store yet: a creation may try to be the first.
    may_be_new: bool,
    /// The version of the last snapshot.
    snapshot: Version,
    /// A snapshot is on its way: one at a time, for each holds the whole state.
    saving: bool,
    /// The first start after a panic reads every event.
    distrusts_snapshots: bool,
    /// Somebody else may write to the order: another process, or the journal, when it still has a commit of an actor that
    /// ended in quarantine. Refusals and reads then wait for the word that nothing newer is stored.
    others_write: bool,
    /// How busy other writers are with this order.
    contention: Contention,
}

/// What is known of other writers who want the same next version. Who has just written is the first to know the new end
/// and would win again and again, while the others read it: after a conflict writers leave one another time to do so.
#[derive(Default)]
struct Contention {
    /// When a conflict was met last.
    met: Option<Instant>,
    /// Nothing is written before.
    yields_until: Option<Instant>,
}

impl Contention {
    fn conflict(&mut self) {
        self.met = Some(Instant::now());
        self.yields_until = None;
    }

    /// `chance` is from 0 to 1.
    fn written(&mut self, began: Instant, chance: f64) {
        let now = Instant::now();
        let contended = self.met.is_some_and(|met| now - met < CONTENDED_FOR);
        // A few of the others' writes, each of which begins with reading what this one left.
        let pause = (now - began).mul_f64(2.0 + 4.0 * chance).min(YIELD_MAX);
        self.yields_until = contended.then(|| now + pause);
    }

    /// How long to leave the order to others.
    fn pause(&self) -> Option<Duration> {
        self.yields_until?.checked_duration_since(Instant::now()).filter(|pause| !pause.is_zero())
    }
}

/// Writers yield to one another so long after the last conflict.
const CONTENDED_FOR: Duration = Duration::from_secs(1);
/// And not for longer than that.
const YIELD_MAX: Duration = Duration::from_millis(200);

enum Life {
    Unread,
    Reading,
    Read(Stream),
}

enum UnderWay {
    /// Others are given the time to be first.
    Yielding,
    /// A commit is with the journal.
    Writing(Writing),
    /// Refusals and reads wait for the word that nothing newer is stored.
    Looking(Vec<Decided>),
}

struct Writing {
    commit: Arc<Commit>,
    began: Instant,
    /// `None` after a restart: then the stream is read again.
    draft: Option<Draft>,
    decided: Vec<Decided>,
    unknown: bool,
}

impl OrderActor {
    /// `failed_before`: its last actor ended in quarantine.
    pub(super) fn new(id: OrderId, context: Rc<ShardContext>, child: Handle, failed_before: bool) -> Self {
        let sole_writer = context.loader.store.sole_writer();
        Self {
            id,
            context,
            child,
            life: Life::Unread,
            waiting: VecDeque::new(),
            under_way: None,
            deciding: None,
            may_be_new: true,
            snapshot: Version::NONE,
            saving: false,
            distrusts_snapshots: failed_before,
            others_write: failed_before || !sole_writer,
            contention: Contention::default(),
        }
    }

    /// Goes on as far as it can without waiting for somebody.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        while self.under_way.is_none() && !self.waiting.is_empty() {
            match self.life {
                Life::Reading => return,
                Life::Unread if self.may_be_new && self.waiting.front().is_some_and(Work::is_creation) => {
                    self.life = Life::Read(Stream::nothing(self.id));
                }
                Life::Unread => return self.read(ctx),
                Life::Read(_) => match self.contention.pause().filter(|_| self.commands_wait()) {
                    Some(pause) => self.yield_for(pause, ctx),
                    None => self.decide(ctx),
                },
            }
        }
    }

    fn commands_wait(&self) -> bool {
        self.waiting.iter().any(|work| matches!(work, Work::Command(_)))
    }

    fn yield_for(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        self.under_way = Some(UnderWay::Yielding);
        ctx.run_later(pause, |actor, ctx| {
            if let Some(UnderWay::Yielding) = actor.under_way {
                actor.under_way = None;
            }
            actor.advance(ctx);
        });
    }

    fn read(&mut self, ctx: &mut Context<Self>) {
        self.life = Life::Reading;
        self.may_be_new = false;
        let (loader, child) = (self.context.loader.clone(), self.child.clone());
        let reading = load::load(self.id, loader, !self.distrusts_snapshots, child).into_actor(self);
        ctx.spawn(reading.map(|loaded, actor, ctx| actor.was_read(loaded, ctx)));
    }

    fn was_read(&mut self, loaded: Result<Loaded, NotLoaded>, ctx: &mut Context<Self>) {
        self.life = Life::Unread;
        match loaded {
            Ok(Loaded { stream, snapshot }) => {
                self.snapshot = snapshot;
                self.distrusts_snapshots = false;
                self.life = Life::Read(stream);
                self.advance(ctx);
            }
            Err(NotLoaded::Store(StoreError::Damaged(what)) | NotLoaded::Poisonous(what)) => {
                tracing::error!(order.id = %self.id, what, "the order cannot be read");
                self.child.fail(Failure::error(format_args!("the order cannot be read: {what}")));
            }
            Err(NotLoaded::Store(error)) => {
                tracing::debug!(order.id = %self.id, %error, "the order cannot be read now");
                self.refuse_waiting(NotDone::StoreAway);
            }
            Err(NotLoaded::SchemaAhead(what)) => {
                tracing::warn!(order.id = %self.id, what, "the order holds an event of a newer docket");
                self.refuse_waiting(NotDone::SchemaAhead);
            }
        }
    }

    fn refuse_waiting(&mut self, why: NotDone) {
        for work in self.waiting.drain(..) {
            work.refuse(why, RETRY_AFTER);
        }
    }

    /// Decides what waits, one after another, for one commit.
    fn decide(&mut self, ctx: &mut Context<Self>) {
        let Life::Read(stream) = &self.life else { return };
        let mut draft = Draft::new(stream, self.context.clock.now());
        let mut outcomes = Vec::new();
        for (index, work) in self.waiting.iter().enumerate() {
            if draft.accepted() >= commit::COMMANDS_MAX || draft.bytes() >= COMMIT_BYTES {
                break;
            }
            let panics = work.panics_before(&mut self.context.panics.borrow_mut());
            let verdict = match work {
                Work::Read(_) => None,
                Work::Command(work) => {
                    self.deciding = Some(index);
                    let told = if panics > 0 { "500 internal" } else { "504 outcome-unknown" };
                    let _handling = self.child.handling(work.request.command.name()).caller_told(told);
                    Some(draft.judge(stream, work.question(), self.context.rules))
                }
            };
            outcomes.push((verdict, draft.order().cloned()));
        }
        self.deciding = None;
        let commit = draft.commit(stream);
        let assumed_new = stream.end().version() == Version::NONE && self.may_be_new;
        let decided: Vec<Decided> = self
            .waiting
            .drain(..outcomes.len())
            .zip(outcomes)
            .map(|(work, (verdict, order))| Decided { work, verdict, order })
            .collect();
        match commit {
            Ok(Some(commit)) => self.write(Arc::new(commit), draft, decided, ctx),
            // That the order is new was a guess, which no write has proved.
            Ok(None) if assumed_new => self.decide_again(decided),
            Ok(None) if !self.others_write => self.answer(decided),
            Ok(None) => self.look(decided, ctx),
            Err(error) => {
                tracing::error!(order.id = %self.id, %error, "a commit cannot be encoded");
                decided.into_iter().for_each(|decided| decided.work.refuse(NotDone::NotDone, RETRY_AFTER));
            }
        }
    }

    fn write(&mut self, commit: Arc<Commit>, draft: Draft, mut decided: Vec<Decided>, ctx: &mut Context<Self>) {
        for decided in &mut decided {
            if let (Work::Command(work), Some(Verdict::Accepted(_))) = (&mut decided.work, &decided.verdict) {
                work.reply.begun();
            }
        }
        let writing =
            Writing { commit: Arc::clone(&commit), began: Instant::now(), draft: Some(draft), decided, unknown: false };
        self.under_way = Some(UnderWay::Writing(writing));
        self.send_to_journal(commit, false, ctx);
    }

    fn send_to_journal(&mut self, commit: Arc<Commit>, again: bool, ctx: &mut Context<Self>) {
        let id = commit.id();
        let append = Append { commit, tell: ctx.address().recipient(), again };
        if self.context.journal.try_send(append).is_err() && !again {
            // It never left.
            self.told(id, Said::NotDone(Why::StoreAway(RETRY_AFTER)), ctx);
        }
    }

    fn look(&mut self, decided: Vec<Decided>, ctx: &mut Context<Self>) {
        let Life::Read(stream) = &self.life else { return };
        let (store, end) = (Arc::clone(&self.context.loader.store), *stream.end());
        self.under_way = Some(UnderWay::Looking(decided));
        let handling = self.child.handling("look");
        let looking = async move {
            let _handling = handling;
            store.is_newest(&end).await
        }
        .into_actor(self);
        ctx.spawn(looking.map(|newest, actor, ctx| actor.looked(newest, ctx)));
    }

    fn looked(&mut self, newest: Result<bool, StoreError>, ctx: &mut Context<Self>) {
        let Some(UnderWay::Looking(decided)) = self.under_way.take() else { return };
        match newest {
            Ok(true) => self.answer(decided),
            Ok(false) => self.overtaken(decided),
            Err(error) => {
                tracing::debug!(order.id = %self.id, %error, "whether something newer is stored cannot be asked now");
                decided.into_iter().for_each(|decided| decided.work.refuse(NotDone::StoreAway, RETRY_AFTER));
            }
        }
        self.advance(ctx);
    }

    /// Another writer was first: decided again on what that one left, but not without end.
    fn overtaken(&mut self, mut decided: Vec<Decided>) {
        let contended = decided.extract_if(.., |decided| decided.work.overtaken() > self.context.limits.conflicts_max);
        contended.for_each(|decided| decided.work.refuse(NotDone::Contended, RETRY_AFTER));
        self.decide_again(decided);
    }

    /// The state it rested on does not hold: it waits again, before everything that came later.
    fn decide_again(&mut self, decided: Vec<Decided>) {
        self.life = Life::Unread;
        self.may_be_new = false;
        for mut decided in decided.into_iter().rev() {
            if let Work::Command(work) = &mut decided.work {
                work.reply.not_begun();
            }
            self.waiting.push_front(decided.work);
        }
    }

    fn told(&mut self, commit: CommitId, said: Said, ctx: &mut Context<Self>) {
        match self.under_way.take() {
            Some(UnderWay::Writing(writing)) if writing.commit.id() == commit => self.settle(writing, said, ctx),
            other => self.under_way = other,
        }
        self.advance(ctx);
    }

    fn settle(&mut self, mut writing: Writing, said: Said, ctx: &mut Context<Self>) {
        match said {
            Said::Written => {
                self.may_be_new = false;
                // Nothing that was open before can still come to be stored: its key is taken.
                self.others_write = !self.context.loader.store.sole_writer();
                match (&mut self.life, writing.draft.take()) {
                    (Life::Read(stream), Some(draft)) => stream.adopt(draft, &writing.commit),
                    (Life::Read(_) | Life::Reading | Life::Unread, _) => self.life = Life::Unread,
                }
                self.contention.written(writing.began, self.context.node.chance());
                self.answer(writing.decided);
                self.take_snapshot(ctx);
            }
            Said::Conflict => {
                self.contention.conflict();
                self.overtaken(writing.decided);
            }
            // It may be the answer to the first asking, while the second is still to be written.
            Said::NotDone(_) if writing.draft.is_none() => {
                let commit = Arc::clone(&writing.commit);
                self.settle(writing, Said::Unknown, ctx);
                self.send_to_journal(commit, true, ctx);
            }
            Said::NotDone(why) => self.not_written(writing.decided, &why),
            Said::Unknown => {
                let again = self.decided_again(&writing.decided);
                for decided in std::mem::take(&mut writing.decided) {
                    decided.outcome_unknown(&writing.commit);
                }
                for work in std::mem::take(&mut self.waiting) {
                    work.refuse_behind(&writing.commit);
                }
                self.waiting = again;
                writing.unknown = true;
                self.under_way = Some(UnderWay::Writing(writing));
            }
        }
    }

    /// Nothing, but for a bug put in on purpose.
    fn decided_again(&self, decided: &[Decided]) -> VecDeque<Work> {
        let commands = decided.iter().filter_map(|decided| match &decided.work {
            Work::Command(work) if self.context.limits.mutant == Some(Mutant::DecidesAgain) => Some(work),
            Work::Command(_) | Work::Read(_) => None,
        });
        commands.map(|work| Work::Command(Box::new(work.once_more()))).collect()
    }

    /// Nothing of the draft holds. Who had an event in it is told so; the others are decided again on what is stored.
    fn not_written(&mut self, decided: Vec<Decided>, why: &Why) {
        let (why, retry_after) = match *why {
            Why::Overloaded => (NotDone::Overloaded, RETRY_AFTER),
            Why::StoreAway(pause) => (NotDone::StoreAway, pause),
        };
        if self.may_be_new {
            self.life = Life::Unread;
        }
        for decided in decided.into_iter().rev() {
            match decided.verdict {
                Some(Verdict::Accepted(_)) => decided.work.refuse(why, retry_after),
                Some(Verdict::Replayed(_) | Verdict::ReplayedAt(_) | Verdict::Refused(_)) | None => {
                    self.waiting.push_front(decided.work);
                }
            }
        }
    }

    fn answer(&mut self, decided: Vec<Decided>) {
        for decided in decided {
            decided.answer();
        }
        if let Life::Read(stream) = &self.life
            && stream.order().is_none()
        {
            self.context.useless.borrow_mut().push(self.id);
        }
    }

    fn take_snapshot(&mut self, ctx: &mut Context<Self>) {
        let Life::Read(stream) = &self.life else { return };
        let version = stream.end().version();
        if self.saving || version.0.saturating_sub(self.snapshot.0) < self.context.limits.snapshot_every_events {
            return;
        }
        let Some(snapshot) = stream.to_snapshot() else { return };
        self.snapshot = version;
        self.saving = true;
        let snapshots = Arc::clone(&self.context.loader.snapshots);
        let id = self.id;
        let saving = async move {
            if let Err(error) = snapshots.save(snapshot).await {
                tracing::debug!(order.id = %id, %error, "a snapshot was not saved");
            }
        };
        ctx.spawn(saving.into_actor(self).map(|(), actor, _| actor.saving = false));
    }

    /// Answers the command that panicked, and remembers it.
    fn blame(&mut self) {
        let Some(work) = self.deciding.take().and_then(|index| self.waiting.remove(index)) else { return };
        match work {
            Work::Command(work) => {
                let panics = self.context.panics.borrow_mut().count(self.id, work.blamed_as());
                let answer = if panics > 1 { CommandError::Internal } else { CommandError::OutcomeUnknown };
                work.reply.send(Err(answer));
            }
            Work::Read(work) => work.reply.send(Err(not_read(NotDone::NotDone))),
        }
    }
}

/// A commit is closed before the next command could bring it over [`commit::BYTES_MAX`]: no command's events are larger
/// than the bodies that are taken in, 64 KiB, and what is written beside them. An import may be, but is always the first.
const COMMIT_BYTES: usize = commit::BYTES_MAX - (128 << 10);

impl Actor for OrderActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(UnderWay::Writing(writing)) = &self.under_way {
            let commit = Arc::clone(&writing.commit);
            self.send_to_journal(commit, true, ctx);
        }
        self.advance(ctx);
    }
}

impl Supervised for OrderActor {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.blame();
        self.life = Life::Unread;
        self.may_be_new = false;
        self.saving = false;
        self.distrusts_snapshots = true;
        match self.under_way.take() {
            Some(UnderWay::Writing(mut writing)) => {
                writing.draft = None;
                self.under_way = Some(UnderWay::Writing(writing));
            }
            Some(UnderWay::Looking(decided)) => self.decide_again(decided),
            Some(UnderWay::Yielding) | None => {}
        }
    }
}

impl Handler<Work> for OrderActor {
    type Result = ();

    fn handle(&mut self, work: Work, ctx: &mut Self::Context) {
        if let Some(UnderWay::Writing(Writing { unknown: true, commit, .. })) = &self.under_way {
            return work.refuse_behind(commit);
        }
        self.waiting.push_back(work);
        self.advance(ctx);
    }
}

impl Handler<Told> for OrderActor {
    type Result = ();

    fn handle(&mut self, told: Told, ctx: &mut Self::Context) {
        self.told(told.commit, told.said, ctx);
    }
}

impl Handler<Retire> for OrderActor {
    type Result = bool;

    fn handle(&mut self, _: Retire, _: &mut Self::Context) -> bool {
        let idle = self.waiting.is_empty() && self.under_way.is_none() && !matches!(self.life, Life::Reading);
        if idle {
            self.child.end();
        }
        idle
    }
}
