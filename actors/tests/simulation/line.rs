//! The one way of a process to everything outside: each call of a port passes here before it is made and after it is
//! answered, and at each of these points the process may be killed or frozen. Nothing outside can tell more exactly when a
//! process died, so this is between any two of its actions.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::book::Book;

/// A process's way outside.
pub(crate) struct Line {
    name: String,
    book: Book,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    way: Way,
    points: u32,
    /// What is to happen at which point, in that order.
    strikes: VecDeque<(u32, Strike)>,
}

/// What happens to a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Strike {
    /// It is gone.
    Kill,
    /// It stands still for so long.
    Freeze(Duration),
}

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    Open,
    FrozenUntil(Instant),
    Cut,
}

impl Line {
    pub(crate) fn new(name: String, book: Book, strikes: Vec<(u32, Strike)>) -> Self {
        let state = State { way: Way::Open, points: 0, strikes: strikes.into() };
        Self { name, book, state: Mutex::new(state), changed: Notify::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn way(&self) -> Way {
        self.state().way
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.way() == Way::Cut
    }

    /// Makes a call, and gives its answer if the process lives to hear it.
    pub(crate) async fn call<T: Debug>(&self, what: impl Fn() -> String, call: impl Future<Output = T>) -> T {
        self.point().await;
        self.book.note(|| format!("{} > {}", self.name, what()));
        let answer = call.await;
        self.book.note(|| format!("{} . {}: {answer:?}", self.name, what()));
        self.point().await;
        answer
    }

    /// As [`Line::call`], of something that may be dropped while it waits and loses nothing by that: it must not have to
    /// wait for anything else once it has its answer.
    pub(crate) async fn wait<T: Debug>(&self, what: impl Fn() -> String, call: impl Future<Output = T>) -> T {
        self.point().await;
        let answer = call.await;
        self.book.note(|| format!("{} < {}: {answer:?}", self.name, what()));
        answer
    }

    /// Nothing strikes it any more, and if it is frozen it goes on.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.strikes.clear();
        if let Way::FrozenUntil(_) = state.way {
            state.way = Way::Open;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// It is gone now, wherever it stands.
    pub(crate) fn cut(&self) {
        self.strike(Strike::Kill);
    }

    /// Waits until something happens to it.
    pub(crate) async fn changes(&self, from: Way) -> Way {
        loop {
            let changed = self.changed.notified();
            let way = self.way();
            if way != from {
                return way;
            }
            changed.await;
        }
    }

    /// Waits until it is gone.
    pub(crate) async fn gone(&self) {
        let mut way = self.way();
        while way != Way::Cut {
            way = self.changes(way).await;
        }
    }

    /// Goes on when it was frozen for long enough.
    pub(crate) fn thaw(&self, frozen: Way) {
        let mut state = self.state();
        if state.way == frozen {
            state.way = Way::Open;
            drop(state);
            self.book.note(|| format!("{} goes on", self.name));
            self.changed.notify_waiters();
        }
    }

    async fn point(&self) {
        let strike = {
            let mut state = self.state();
            state.points += 1;
            let points = state.points;
            state.strikes.pop_front_if(|(at, _)| *at <= points)
        };
        if let Some((_, strike)) = strike {
            self.strike(strike);
        }
        let mut way = self.way();
        while way != Way::Open {
            way = self.changes(way).await;
        }
    }

    fn strike(&self, strike: Strike) {
        let mut state = self.state();
        if state.way == Way::Cut {
            return;
        }
        state.way = match strike {
            Strike::Kill => Way::Cut,
            Strike::Freeze(time) => Way::FrozenUntil(Instant::now() + time),
        };
        drop(state);
        self.book.note(|| format!("{} strikes {}", Named(strike), self.name));
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Named(Strike);

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Strike::Kill => f.write_str("death"),
            Strike::Freeze(time) => write!(f, "frost of {time:?}"),
        }
    }
}
