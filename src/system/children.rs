//! The children that every process has, whatever its parts: the ledger, HTTP, and the beat.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Data;
use actors::nodes::Heartbeat;
use actors::supervisor::child::Limits;
use actors::supervisor::{Child, Failure, Handle, Ledger, LedgerStore, Node};
use futures_util::FutureExt;

use crate::config::{Config, millis};
use crate::http::{self, Listeners, Service};

/// First to start and last to stop, so that it stores what becomes of the others.
pub(super) fn ledger_child(ledger: Ledger, store: Arc<dyn LedgerStore>) -> Child {
    let job = move |_: &Node| {
        move |handle: &Handle| {
            let (ledger, store, handle) = (ledger.clone(), Arc::clone(&store), handle.clone());
            async move {
                tokio::select! {
                    () = ledger.clone().keep(Arc::clone(&store)) => {}
                    () = handle.stop_requested() => ledger.keep_rest(&*store).await,
                }
                Ok(())
            }
            .boxed_local()
        }
    };
    Child::task("ledger", "ledger", job).isolated()
}

/// The name of the child that beats.
pub(super) const NODES: &str = "nodes";

/// Last to start and first to stop: it says of this process that it is there.
pub(super) fn nodes_child(heartbeat: Heartbeat) -> Child {
    let job = move |_: &Node| {
        move |handle: &Handle| {
            let (heartbeat, handle) = (heartbeat.clone(), handle.clone());
            async move {
                tokio::select! {
                    () = heartbeat.beat() => {}
                    () = handle.stop_requested() => heartbeat.leave().await,
                }
                Ok(())
            }
            .boxed_local()
        }
    };
    let child = Child::task(NODES, "nodes", job).isolated();
    child.limits(Limits { stuck_after: None, stop_within: LEAVE_WITHIN })
}

/// A process that cannot leave the registry in this time is seen as silent instead.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// Serves until it is asked to stop; then takes no more connections and lets what is under way finish.
pub(super) fn http_child(config: &Config, listeners: Listeners, service: Data<Service>) -> Child {
    let deadline = millis(config.shutdown.deadline_ms);
    let config = config.clone();
    let service = service.into_inner();
    let child = Child::task("http", "http", move |_: &Node| {
        let listeners = Rc::new(RefCell::new(Some(listeners)));
        move |handle: &Handle| {
            let (config, service, handle) = (config.clone(), Data::from(Arc::clone(&service)), handle.clone());
            let listeners = Rc::clone(&listeners);
            async move {
                let served = listeners.borrow().as_ref().map(|listeners| http::serve(&config, listeners, service));
                let Some(server) = served else { return Ok(()) };
                let mut server = server.map_err(Failure::error)?;
                tokio::select! {
                    error = server.ended() => Err(Failure::error(error)),
                    () = handle.stop_requested() => {
                        // Closed, so that a caller who comes now is refused instead of left waiting.
                        listeners.borrow_mut().take();
                        server.stop(deadline).await;
                        Ok(())
                    }
                }
            }
            .boxed_local()
        }
    });
    child.limits(Limits { stuck_after: None, stop_within: deadline + Duration::from_secs(1) })
}
