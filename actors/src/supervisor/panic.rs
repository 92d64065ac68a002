//! Panics of supervised children as data. One hook for the process keeps the text and the place of a panic for whoever
//! catches it, and is quiet; a panic that nobody supervises goes to the hook that was there before.
//!
//! The hook knows a supervised panic by a thread-local that names the child whose code is running, so several dockets
//! in one process do not mix.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{Arc, Once};

use serde::{Deserialize, Serialize};

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Panic {
    /// What it said, at most [`TEXT_MAX`] bytes.
    pub text: String,
    /// Where in the source: `file:line:column`.
    pub place: String,
}

/// The longest text of a panic that is kept, in bytes.
pub const TEXT_MAX: usize = 2_000;

/// Runs code of the child at `path`. A panic in it comes back as data, unprinted.
///
/// # Errors
/// The panic. Whatever the code has changed stays changed: it must be rebuilt before it is used again.
pub fn caught<R>(path: &Arc<str>, code: impl FnOnce() -> R) -> Result<R, Panic> {
    let outer = RUNNING.replace(Some(Running { path: Arc::clone(path), panic: None }));
    let result = panic::catch_unwind(AssertUnwindSafe(code));
    let running = RUNNING.replace(outer);
    result.map_err(|payload| running.and_then(|running| running.panic).unwrap_or_else(|| without_hook(payload)))
}

/// Whether code of the child at `path` is running on this thread.
pub(super) fn is_running(path: &Arc<str>) -> bool {
    let is = |running: &RefCell<Option<Running>>| {
        running.try_borrow().is_ok_and(|running| running.as_ref().is_some_and(|running| running.path == *path))
    };
    RUNNING.try_with(is).unwrap_or(false)
}

/// Puts the hook before the one that is there, once in a process.
pub fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !kept(info) {
                before(info);
            }
        }));
    });
}

/// At most [`TEXT_MAX`] bytes of a text.
pub(super) fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

struct Running {
    path: Arc<str>,
    panic: Option<Panic>,
}

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// Whether the panic is a supervised child's, and now known to whoever catches it.
fn kept(info: &PanicHookInfo<'_>) -> bool {
    let keep = |running: &RefCell<Option<Running>>| {
        let Ok(mut running) = running.try_borrow_mut() else { return false };
        let Some(running) = running.as_mut() else { return false };
        if running.panic.is_some() {
            // A panic while one unwinds ends the process: the last words must be seen.
            tracing::error!(path = %running.path, "panic while unwinding: {info}");
            return false;
        }
        let place = info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        running.panic = Some(Panic { text: text(info.payload()), place });
        true
    };
    RUNNING.try_with(keep).unwrap_or(false)
}

/// `resume_unwind` does not call the hook.
fn without_hook(payload: Box<dyn Any + Send>) -> Panic {
    let panic = Panic { text: text(payload.as_ref()), place: "unknown".to_owned() };
    // A payload may panic in its own drop.
    if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    panic
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("a panic without a text");
    shortened(text).to_owned()
}
