//! Lets a checkpoint have the file for itself for a moment. A checkpoint that is read and written beside never comes
//! to the end of the write-ahead log, which then grows for ever. It only ever waits for what is short: a page that is
//! read, a group that is written.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Those who use the file enter; one who wants it alone closes.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    checkpoint: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    inside: usize,
}

/// Somebody uses the file.
#[derive(Debug)]
pub(super) struct Inside<'a>(&'a Gate);

/// Nobody else uses the file.
#[derive(Debug)]
pub(super) struct Closed<'a>(&'a Gate);

impl Gate {
    /// Waits while the gate is closed. To be left before long.
    pub(super) fn enter(&self) -> Inside<'_> {
        let mut state = self.when(|state| !state.closed);
        state.inside += 1;
        Inside(self)
    }

    /// Waits until no other checkpoint is under way, and keeps others from beginning: SQLite refuses the second one at
    /// once. To be called before [`Gate::close`].
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps others from entering and waits until all have left. Not to be called from inside.
    pub(super) fn close(&self) -> Closed<'_> {
        let mut state = self.when(|state| !state.closed);
        state.closed = true;
        drop(state);
        drop(self.when(|state| state.inside == 0));
        Closed(self)
    }

    fn when(&self, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.lock();
        self.changed.wait_while(state, |state| !condition(state)).unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        self.0.changed.notify_all();
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.lock().closed = false;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn closing_waits_for_those_inside_and_keeps_others_out() {
        let gate = Gate::default();
        let alone = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let inside = gate.enter();
            let closing = scope.spawn(|| {
                let closed = gate.close();
                alone.store(true, Ordering::SeqCst);
                drop(closed);
            });
            while !gate.lock().closed {
                std::thread::yield_now();
            }
            assert!(!alone.load(Ordering::SeqCst), "closed while somebody was inside");
            let entering = scope.spawn(|| {
                let _inside = gate.enter();
                assert!(alone.load(Ordering::SeqCst), "entered a closed gate");
            });
            drop(inside);
            closing.join().expect("closed");
            entering.join().expect("entered");
        });
    }
}
