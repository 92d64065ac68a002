//! The journal as an actor: carries out what [`Journal`] wants done.

use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Action, Health, Journal, Limits, Said};
use crate::commit::{Commit, CommitId};
use crate::event_store::{Appended, EventStore};
use crate::supervisor::Node;

/// Please write this commit.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Append {
    /// What to write.
    pub commit: Arc<Commit>,
    /// Who is told what became of it.
    pub tell: Recipient<Told>,
    /// Whether its order asked before and may have missed the answer.
    pub again: bool,
}

/// What became of a commit.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Told {
    /// Which commit.
    pub commit: CommitId,
    /// What became of it.
    pub said: Said,
}

/// The capacity of mailboxes whose bound is kept elsewhere. (An actor's own is 16 for each sender, and none for a sender
/// that was cloned.)
pub(crate) const MAILBOX_MAX: usize = 1 << 20;

/// The journal's actor. Essential: without it nothing can be written.
pub struct JournalActor {
    journal: Journal<Recipient<Told>>,
    store: Arc<dyn EventStore>,
    health: watch::Sender<Health>,
    node: Option<Node>,
    alarm: Option<(Instant, SpawnHandle)>,
    write_lost: bool,
}

impl JournalActor {
    /// A journal in front of `store`, and where its health can be watched.
    pub fn new(store: Arc<dyn EventStore>, limits: Limits) -> (Self, watch::Receiver<Health>) {
        let (health, watched) = watch::channel(Health::default());
        (Self { journal: Journal::new(limits), store, health, node: None, alarm: None, write_lost: false }, watched)
    }

    /// Shows at that node how many outcomes are unknown, and how many were and became definite.
    #[must_use]
    pub fn shown_at(mut self, node: &Node) -> Self {
        self.node = Some(node.clone());
        self
    }

    /// Made ready for `ctx`, in which it is about to start.
    #[must_use]
    pub fn on(self, ctx: &mut Context<Self>) -> Self {
        // The bounds are the admission's and `waiting_max`: an order must never find this mailbox full.
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        self
    }

    fn carry_out(&mut self, actions: Vec<Action<Recipient<Told>>>, ctx: &mut Context<Self>) {
        for action in actions {
            match action {
                Action::Write(group) => {
                    let store = Arc::clone(&self.store);
                    let write = async move { store.append(group).await }.into_actor(self);
                    ctx.spawn(write.map(|outcomes: Vec<Appended>, actor, ctx| {
                        let actions = actor.journal.wrote(outcomes, Instant::now());
                        actor.carry_out(actions, ctx);
                        actor.publish_health();
                    }));
                }
                // One message an order is under way at most, so the order's mailbox has room; an order that is gone
                // has nobody left to tell.
                Action::Tell(order, commit, said) => drop(order.try_send(Told { commit, said })),
            }
        }
        self.set_alarm(ctx);
    }

    fn publish_health(&self) {
        let health = self.journal.health(Instant::now());
        if let Some(node) = &self.node {
            node.figure("outcomes_unknown", health.unsettled as u64);
            node.figure("outcomes_settled", health.settled);
        }
        self.health.send_if_modified(|shown| {
            let away_changed = shown.away != health.away;
            if away_changed {
                match &health.away {
                    Some(reason) => tracing::warn!(reason, "the event store does not take writes"),
                    None => tracing::info!("the event store takes writes again"),
                }
            }
            if shown.unsettled > 0 && health.unsettled == 0 {
                tracing::info!(settled = health.settled, "the outcome of every write is known again");
            }
            let changed = *shown != health;
            *shown = health;
            changed
        });
    }

    fn set_alarm(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let due = self.journal.wake_at(now);
        // An alarm that rings early only looks once more, so a later due time does not move it.
        if let (Some(due), Some((set, _))) = (due, self.alarm)
            && set <= due
        {
            return;
        }
        if let Some((_, handle)) = self.alarm.take() {
            ctx.cancel_future(handle);
        }
        let Some(due) = due else { return };
        let handle = ctx.run_later(due.saturating_duration_since(now), |actor, ctx| {
            actor.alarm = None;
            let actions = actor.journal.tick(Instant::now());
            actor.carry_out(actions, ctx);
            actor.publish_health();
        });
        self.alarm = Some((due, handle));
    }
}

impl Actor for JournalActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if std::mem::take(&mut self.write_lost) {
            let actions = self.journal.lost_write(Instant::now());
            self.carry_out(actions, ctx);
        }
    }
}

impl Supervised for JournalActor {
    fn restarting(&mut self, _: &mut Self::Context) {
        // A restart drops the futures of the actor: the write that was under way will not report.
        self.alarm = None;
        self.write_lost = true;
    }
}

impl Handler<Append> for JournalActor {
    type Result = ();

    fn handle(&mut self, message: Append, ctx: &mut Self::Context) {
        let Append { commit, tell, again } = message;
        let now = Instant::now();
        let actions = match again {
            false => self.journal.append(commit, tell, now),
            true => self.journal.append_again(commit, tell, now),
        };
        self.carry_out(actions, ctx);
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::clock::{Timestamp, TokioClock};
    use crate::commit::StreamEnd;
    use crate::event_store::{Group, StoreError};
    use crate::order::{OrderId, Version};
    use crate::supervisor::{Child, End, Ledger, Node, Policy, Strategy, Supervisor};
    use crate::testing::commits;

    struct Broken;

    #[async_trait]
    impl EventStore for Broken {
        async fn append(&self, _: Group) -> Vec<Appended> {
            panic!("a store with a bug")
        }

        async fn read(&self, _: OrderId, _: Version, _: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
            Ok(Vec::new())
        }

        async fn is_newest(&self, _: &StreamEnd) -> Result<bool, StoreError> {
            Ok(true)
        }

        fn sole_writer(&self) -> bool {
            true
        }
    }

    struct Order;

    impl Actor for Order {
        type Context = Context<Self>;
    }

    impl Handler<Told> for Order {
        type Result = ();

        fn handle(&mut self, _: Told, _: &mut Self::Context) {}
    }

    #[test]
    fn a_journal_that_keeps_panicking_ends_everything_with_its_reason() {
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().start_paused(true).build().expect("a runtime")
        };
        actix_rt::System::with_tokio_rt(runtime).block_on(async {
            let clock = Arc::new(TokioClock::starting_at(Timestamp::EPOCH));
            let node = Node::root("docket", clock, Ledger::new("test"), 1);
            let (journal, _) = JournalActor::new(Arc::new(Broken), Limits::default());
            let (child, address) = Child::actor("journal", "journal", move |ctx, _, _| journal.on(ctx));
            let root = Supervisor::new(Strategy::OneForOne, Policy::default()).child(child).start(&node);
            let order = Order.start();
            let append = Append { commit: commits::first(1), tell: order.recipient(), again: false };
            assert!(address.try_send(append).is_ok());
            let end = tokio::time::timeout(std::time::Duration::from_secs(3600), root).await.expect("it ends");
            assert!(matches!(end, End::Failed(_)));
            assert_ne!(end.exit_code(), 0);
            let reason = end.to_string();
            assert!(reason.contains("docket/journal") && reason.contains("a store with a bug"), "{reason}");
        });
    }
}
