//! A running tree, and why it ended.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use tokio::sync::oneshot;

use super::Supervisor;
use super::child::{self, ChildSpec, Ending, Event, Handle};
use super::ledger::{Cause, Entry};
use super::supervising::Supervising;
use super::tree::Node;

/// A running tree. Resolves to the reason why everything must end.
#[must_use = "the tree says here why it ended"]
pub struct Root {
    handle: Handle,
    end: oneshot::Receiver<Ending>,
}

impl Root {
    pub(super) fn start(supervisor: Supervisor, root: &Node) -> Self {
        let (ended, end) = oneshot::channel();
        let mut ended = Some(ended);
        let spec = ChildSpec::root(root).limits(supervisor.limits()).on_event(move |event| {
            if let Event::Ended(ending) = event
                && let Some(ended) = ended.take()
            {
                // Nobody may wait for it.
                let _ = ended.send(ending);
            }
        });
        let make = |_: &mut _, handle: &Handle| Supervising::new(supervisor, root.clone(), handle.clone());
        let (_, handle) = child::start_kept(spec, make);
        Self { handle, end }
    }

    /// To stop everything, the last started first: [`Handle::end`].
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Future for Root {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<End> {
        let ending = ready!(Pin::new(&mut self.get_mut().end).poll(cx));
        Poll::Ready(match ending {
            Ok(Ending::Failed(entry)) => End::Failed(entry),
            Ok(Ending::Asked | Ending::Unreachable) | Err(_) => End::Asked,
        })
    }
}

/// Why a tree has ended.
#[derive(Clone, Debug)]
pub enum End {
    /// It was asked to, and everything has stopped.
    Asked,
    /// Something essential failed for good.
    Failed(Arc<Entry>),
}

impl End {
    /// For the process: 0, or 70 (EX_SOFTWARE).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Asked => 0,
            Self::Failed(_) => 70,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("stopped"),
            Self::Failed(entry) => match &entry.cause {
                Cause::Escalated { path, cause } => write!(f, "{path} failed for good: {cause}"),
                cause @ (Cause::Panic(_)
                | Cause::Error { .. }
                | Cause::Stuck { .. }
                | Cause::Stop
                | Cause::ArbiterGone
                | Cause::Operator) => write!(f, "{} failed for good: {cause}", entry.path),
            },
        }
    }
}
