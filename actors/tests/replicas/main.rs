//! Three dockets on one store, as three processes, on virtual time and one thread: each with its own journal, orders and
//! subscriber, over a replica set in memory that elects, rolls back and lets a process talk to a deposed primary. A process
//! can be frozen: nothing of it runs until it is thawed. In some of the tests events travel through a broker.

#![expect(clippy::unwrap_used, reason = "tests")]

mod broker;
mod orders;
mod present;
mod process;
mod subscriber;
mod turmoil;

use std::time::Duration;

/// Runs on one thread with tokio's clock paused.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    actix_rt::System::with_tokio_rt(runtime).block_on(test)
}

/// How many seeds a test tries.
fn seeds(few: u64) -> std::ops::Range<u64> {
    0..if std::env::var_os("DOCKET_TEST_LONG").is_some() { few * 50 } else { few }
}

/// Waits for up to ten minutes of virtual time.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited ten minutes and in vain until {what}");
}
