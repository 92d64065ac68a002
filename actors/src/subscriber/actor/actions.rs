//! Carries out what the engine says. Each answer goes back to it.

use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context};
use tokio::time::{Instant, sleep};

use super::{Life, SubscriberActor};
use crate::clock::Timestamp;
use crate::event::Envelope;
use crate::inbox::{InboxError, RecordedEffect, Row, Transaction, Which, Work};
use crate::subscriber::batch::Handling;
use crate::subscriber::engine::{Action, EFFECTS_PER_ORDER_MAX, Input, Run};

impl SubscriberActor {
    pub(super) fn act(&mut self, action: Action, now: Timestamp, ctx: &mut Context<Self>) {
        let inbox = self.ports.inbox.clone();
        let generation = self.handling.generation;
        match action {
            Action::Load(orders) => {
                self.ask(async move { Input::Loaded(inbox.rows(generation, orders).await) }, ctx);
            }
            Action::Handle(batch) => {
                let handling = self.handling.clone();
                self.ask(async move { Input::Handled(handling.handle(batch).await) }, ctx);
            }
            Action::HandleAside(run, event) => self.handle_aside(run, event, ctx),
            Action::GiveUpAside(run) => {
                if let Some(aside) = self.asides.remove(&run).and_then(|number| self.under_way.remove(&number)) {
                    ctx.cancel_future(aside);
                }
            }
            Action::Commit(transaction) => self.commit(transaction, ctx),
            Action::LoadDue { work, until, limit } => {
                let handling = self.handling.clone();
                self.ask(async move { Input::Due(work, due(&handling, work, until, limit).await) }, ctx);
            }
            Action::ReadHistory { order, from, limit } => {
                let history = self.ports.history.clone();
                self.ask(async move { Input::History(order, history.read(order, from, limit).await) }, ctx);
            }
            Action::LoadWaiting { after, limit } => {
                self.ask(async move { Input::Waiting(inbox.waiting(after, limit).await, limit) }, ctx);
            }
            Action::LoadEffects(orders) => {
                let load = async move { inbox.effects(orders, Which::Waiting, EFFECTS_PER_ORDER_MAX).await };
                self.ask(async move { Input::EffectsLoaded(load.await) }, ctx);
            }
            Action::Perform(effect) => self.perform(*effect, ctx),
            Action::CountTotals => self.ask(async move { Input::Totals(inbox.totals(generation).await) }, ctx),
            Action::LookUpHeads(orders) => {
                self.ask(async move { Input::HeadsLookedUp(inbox.rows(generation, orders).await) }, ctx);
            }
            Action::Acknowledge(receipt) => drop(self.said.acknowledged.send_replace(Some(receipt))),
            Action::WakeAt(at) => self.wake_in(at.since(now), ctx),
            Action::End => self.deposed(ctx),
        }
    }

    fn handle_aside(&mut self, run: Run, event: Arc<Envelope>, ctx: &mut Context<Self>) {
        let (handling, order) = (self.handling.clone(), event.order);
        let handle = async move { Input::HandledAside(run, order, handling.handle_aside(event).await) };
        let handled = move |act: &mut Self, handled, ctx: &mut Context<Self>| {
            act.asides.remove(&run);
            act.take(handled, ctx);
        };
        let number = self.spawn(handle, handled, ctx);
        self.asides.insert(run, number);
    }

    fn commit(&mut self, transaction: Arc<Transaction>, ctx: &mut Context<Self>) {
        let inbox = self.ports.inbox.clone();
        let asked_at = Instant::now();
        let commit = async move { inbox.commit(transaction).await };
        self.spawn(commit, move |act, committed, ctx| act.committed(asked_at, committed, ctx), ctx);
    }

    /// No store can refuse an effect: it begins only while the lease is certainly this process's own. One that is under
    /// way when the process is frozen goes on afterwards, and may then be performed twice.
    fn perform(&mut self, effect: RecordedEffect, ctx: &mut Context<Self>) {
        let Life::Active(active) = &self.life else { return };
        let (held, handling, clock) = (active.lease.held(), self.handling.clone(), self.ports.clock.clone());
        let perform = async move {
            held.now().await;
            Input::Performed(handling.perform(effect, clock).await)
        };
        self.ask(perform, ctx);
    }

    fn wake_in(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if let Some(wake) = self.wake.take().and_then(|wake| self.under_way.remove(&wake)) {
            ctx.cancel_future(wake);
        }
        self.wake = Some(self.spawn(sleep(wait), |act, (), ctx| act.take(Input::Tick, ctx), ctx));
    }
}

async fn due(
    handling: &Handling,
    work: Work,
    until: Timestamp,
    limit: usize,
) -> Result<(Vec<Row>, Option<Timestamp>), InboxError> {
    let rows = handling.inbox.due(handling.generation, work, until, limit).await?;
    if rows.len() >= limit {
        return Ok((rows, Some(until)));
    }
    let next = handling.inbox.next_due(handling.generation, work, until).await?;
    Ok((rows, next))
}
