//! SIGTERM: what is under way is answered, what was answered stays, and the process ends by itself; a second one waits
//! for nobody.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::StatusCode;

use crate::harness::{Docket, Folder, Store, an_order, eventually, on_every_store};

/// Places orders until nobody answers; how many were placed.
async fn place_until_it_ends(docket: &Docket, writer: usize, all: &AtomicUsize) -> BTreeMap<String, String> {
    let mut placed = BTreeMap::new();
    for n in 0.. {
        let reference = format!("{writer}-{n}");
        let Ok(answer) = docket.place(&an_order(&reference)).send().await else { break };
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        placed.insert(answer.id(), reference);
        all.fetch_add(1, Ordering::Relaxed);
    }
    placed
}

on_every_store!(a_stop_under_load_answers_what_is_under_way_and_loses_nothing, a_second_signal_ends_it_at_once,);

async fn a_stop_under_load_answers_what_is_under_way_and_loses_nothing(store: Store) {
    let folder = Folder::new(store);
    let docket = folder.start().await;
    let all = AtomicUsize::new(0);
    let writers = join_all((0..16).map(|writer| place_until_it_ends(&docket, writer, &all)));
    let stop = async {
        eventually("all writers are at work", async || all.load(Ordering::Relaxed) >= 300).await;
        docket.signal("TERM");
        Instant::now()
    };
    let (placed, asked) = tokio::join!(writers, stop);
    let placed: BTreeMap<String, String> = placed.into_iter().flatten().collect();
    assert!(!placed.is_empty());
    assert_eq!(docket.ended().await, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(15), "it took {:?}", asked.elapsed());

    let docket = folder.start().await;
    for (order, reference) in &placed {
        assert_eq!(docket.order(order).await["reference"], **reference);
    }
}

async fn a_second_signal_ends_it_at_once(store: Store) {
    let folder = Folder::new(store);
    let docket = folder.start().await;
    let address = docket.http.trim_start_matches("http://").to_owned();
    // A body that does not come: it would be waited for until the deadline.
    let mut caller = TcpStream::connect(&address).expect("a connection");
    let head = "POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\
                Expect: 100-continue\r\n\r\n";
    caller.write_all(head.as_bytes()).expect("sent");
    caller.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    let mut go_on = [0; 12];
    caller.read_exact(&mut go_on).expect("an answer to the head");
    assert_eq!(&go_on, b"HTTP/1.1 100");

    docket.signal("TERM");
    eventually("nobody is let in any more", async || TcpStream::connect(&address).is_err()).await;
    docket.signal("TERM");
    let asked = Instant::now();
    assert_eq!(docket.ended().await, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
}
