//! SIGTERM under load: what is under way is answered, what was answered stays, and the process ends by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::StatusCode;

use crate::harness::{Docket, Folder, an_order};

/// Places orders until nobody answers; how many were placed.
async fn place_until_it_ends(docket: &Docket, writer: usize) -> BTreeMap<String, String> {
    let mut placed = BTreeMap::new();
    for n in 0.. {
        let reference = format!("{writer}-{n}");
        let Ok(answer) = docket.place(&an_order(&reference)).send().await else { break };
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        placed.insert(answer.id(), reference);
    }
    placed
}

#[tokio::test]
async fn a_stop_under_load_answers_what_is_under_way_and_loses_nothing() {
    let folder = Folder::new();
    let docket = folder.start().await;
    let pid = docket.pid();
    let writers = join_all((0..16).map(|writer| place_until_it_ends(&docket, writer)));
    let stop = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        std::process::Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().expect("sh");
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
