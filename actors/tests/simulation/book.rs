//! What happened, in order: the trace of a seed, and what was wrong first.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Longest line of a trace, in characters: an answer may hold whole rows.
const LINE_CHARS_MAX: usize = 2_000;

/// The book. Clones are the same.
#[derive(Clone)]
pub(crate) struct Book(Arc<Mutex<Pages>>);

struct Pages {
    began: Instant,
    /// `None`: nobody wants to read it.
    lines: Option<Vec<String>>,
    wrong: Option<String>,
}

impl Book {
    /// An empty one. Lines are kept when somebody wants them.
    pub(crate) fn new(traced: bool) -> Self {
        let lines = traced.then(Vec::new);
        Self(Arc::new(Mutex::new(Pages { began: Instant::now(), lines, wrong: None })))
    }

    /// Something happened.
    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        let pages = &mut *self.pages();
        let Some(lines) = &mut pages.lines else { return };
        let mut line = format!("{:>9.3} {}", pages.began.elapsed().as_secs_f64(), line());
        if let Some((end, _)) = line.char_indices().nth(LINE_CHARS_MAX) {
            line.truncate(end);
            line.push('…');
        }
        lines.push(line);
    }

    /// Something is wrong: the seed has failed. The first thing counts.
    pub(crate) fn wrong(&self, what: impl FnOnce() -> String) {
        let mut pages = self.pages();
        if pages.wrong.is_some() {
            return;
        }
        let what = what();
        pages.wrong = Some(what.clone());
        drop(pages);
        self.note(|| format!("WRONG: {what}"));
    }

    /// As [`Book::wrong`], unless it holds.
    pub(crate) fn demand(&self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.wrong(otherwise);
        }
    }

    /// Two things are to be the same.
    pub(crate) fn demand_same<T: PartialEq + Debug>(&self, what: impl FnOnce() -> String, is: &T, should_be: &T) {
        self.demand(is == should_be, || format!("{}: {is:?} instead of {should_be:?}", what()));
    }

    /// What was wrong first.
    pub(crate) fn first_wrong(&self) -> Option<String> {
        self.pages().wrong.clone()
    }

    /// What happened.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.pages().lines.clone().unwrap_or_default()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
