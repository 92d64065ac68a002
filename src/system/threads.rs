//! The threads of a part of docket, which end with it. Parts never share one: neither a hot order nor a slow subscriber
//! holds up a write.

use actix_rt::{Arbiter, ArbiterHandle};

/// Threads, ended when this is dropped.
#[derive(Default)]
pub(super) struct Threads(Vec<Arbiter>);

impl Threads {
    /// Starts another one.
    pub(super) fn start(&mut self) -> ArbiterHandle {
        let arbiter = Arbiter::new();
        let handle = arbiter.handle();
        self.0.push(arbiter);
        handle
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for arbiter in &self.0 {
            arbiter.stop();
        }
    }
}
