//! Who decides what follows a failure: the child itself, by its policy, or its supervisor.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::handle::Handle;
use super::quarantine::Quarantine;
use super::{ChildSpec, Ending, Event};
use crate::supervisor::ledger::{Cause, Decided, Entry, Message};
use crate::supervisor::policy::{Decision, Importance, Policy, Record};
use crate::supervisor::report::{Reporter, What};
use crate::supervisor::tree::{Node, Status};
use crate::supervisor::written::{Written, write_down};

/// Who decides what follows a failure.
pub(super) enum Judge {
    Own(Box<Own>),
    Supervisor(Reporter),
}

impl Judge {
    /// The child works.
    pub(super) fn started(&mut self) {
        match self {
            Self::Supervisor(reporter) => reporter.report(What::Started),
            Self::Own(own) => own.started(),
        }
    }

    pub(super) fn ended(&mut self, ending: Ending) {
        match self {
            Self::Supervisor(reporter) => reporter.report(What::Ended),
            Self::Own(own) => own.ended(ending),
        }
    }

    /// The child was dropped by its arbiter, which ends.
    pub(super) fn arbiter_gone(&mut self) {
        match self {
            Self::Supervisor(reporter) => reporter.report(What::Gone(Cause::ArbiterGone)),
            Self::Own(own) => own.set_status(Status::Stopped),
        }
    }
}

/// A child's own judgement: its policy and its record, and whom it tells.
pub(super) struct Own {
    parent: Node,
    node: Option<Node>,
    listed: bool,
    kind: &'static str,
    importance: Importance,
    policy: Arc<Policy>,
    record: Record,
    closes_mailbox: bool,
    started_before: bool,
    on_event: Option<Box<dyn FnMut(Event)>>,
}

impl Own {
    pub(super) fn new(mut spec: ChildSpec, handle: &Handle) -> Self {
        let before = spec.before.take();
        let record = before.as_ref().map(|quarantine| quarantine.record().clone()).unwrap_or_default();
        let node = before.as_ref().map(|quarantine| quarantine.node().clone()).or(spec.node);
        let mut own = Self {
            parent: spec.parent,
            node,
            listed: spec.listed,
            kind: spec.kind,
            importance: spec.importance,
            policy: spec.policy,
            record,
            closes_mailbox: spec.closes_mailbox,
            started_before: before.is_some(),
            on_event: spec.on_event,
        };
        if own.listed || own.node.is_some() {
            own.node(handle);
        }
        if !own.listed {
            own.parent.count_live(true);
        }
        own
    }

    /// The child's node, made when it is first needed: an order that never fails has none.
    fn node(&mut self, handle: &Handle) -> Node {
        let node = match self.node.take() {
            Some(node) => node,
            None if self.listed => {
                let name = handle.path().rsplit('/').next().unwrap_or_default();
                self.parent.child(name, self.kind, self.importance)
            }
            None => self.parent.member(Arc::clone(handle.path()), self.kind, self.importance),
        };
        node.set_handle(handle.clone());
        node.set_policy(Arc::clone(&self.policy));
        self.node = Some(node.clone());
        node
    }

    pub(super) fn tell(&mut self, event: Event) {
        if let Some(on_event) = &mut self.on_event {
            on_event(event);
        }
    }

    fn set_status(&self, status: Status) {
        if let Some(node) = &self.node {
            node.set_status(status);
        }
    }

    fn started(&mut self) {
        self.record.resumed(Instant::now());
        match &self.node {
            Some(node) if self.started_before => node.restarted(),
            Some(node) => node.set_status(Status::Running),
            None => {}
        }
        if std::mem::replace(&mut self.started_before, true) {
            self.tell(Event::Resumed);
        }
    }

    /// An operator's: its failures are forgotten.
    pub(super) fn released(&mut self) {
        self.record.released();
    }

    /// What its owner keeps of it, when it ends in quarantine.
    pub(super) fn quarantine(&mut self, after: Duration, handle: &Handle) -> Option<Quarantine> {
        let node = self.closes_mailbox.then(|| self.node(handle))?;
        Some(Quarantine::new(after, self.record.clone(), handle.clone(), node))
    }

    fn ended(&mut self, ending: Ending) {
        self.set_status(if matches!(ending, Ending::Failed(_)) { Status::Failed } else { Status::Stopped });
        self.tell(Event::Ended(ending));
    }

    /// A fact for the ledger that needs no decision.
    pub(super) fn write(&mut self, handle: &Handle, cause: Cause, message: Option<Message>, decided: Decided) {
        let node = self.node(handle);
        let after = (decided == Decided::Restart).then_some(Duration::ZERO);
        write_down(&node, &self.policy, &self.record, Written { cause, message, decided, after });
    }

    /// Decides, and writes it down. Returns the decision and its entry.
    pub(super) fn judge(&mut self, handle: &Handle, cause: Cause, message: Option<Message>) -> (Decision, Arc<Entry>) {
        let node = self.node(handle);
        if !self.listed {
            self.parent.list(&node);
        }
        let decision = self.record.failed(&self.policy, self.importance, Instant::now(), node.chance());
        let (decided, after) = match decision {
            Decision::Restart { after } => (Decided::Restart, Some(after)),
            Decision::Quarantine { after } => (Decided::Quarantine, Some(after)),
            Decision::Escalate => (Decided::Escalate, None),
        };
        let entry = write_down(&node, &self.policy, &self.record, Written { cause, message, decided, after });
        (decision, entry)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if !self.listed {
            self.parent.count_live(false);
        }
    }
}
