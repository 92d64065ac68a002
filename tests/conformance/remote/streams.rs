//! What only the other side of a connection can show: heads, a cut, silence, the end of the one who sends, a registry, and
//! pages that would be too large.

use std::io::{Read, Write};
use std::net::TcpListener;

use actors::commit::{CommitId, StreamEnd};
use actors::history::{Head, History};
use actors::log::{LogId, Position};
use actors::nodes::Nodes;
use actors::order::OrderId;
use actors::testing::commits::{commit, commit_with, first};
use actors::testing::conformance::{block_on, ids, written};
use tokio::time::timeout;

use super::*;

async fn opened() -> (Remote, sqlite::Store, Client) {
    let remote = Remote::new().await;
    drop(remote.open().await);
    let client = remote.served.lock().expect("no panic").as_ref().expect("it is open").client();
    let store = remote.sqlite.opened();
    (remote, store, client)
}

/// As the one port that it is here: a log is a history, too.
fn log(client: &Client) -> Arc<dyn Log> {
    Arc::new(client.log())
}

fn head(commit: &Commit) -> Head {
    Head { order: commit.order(), last: commit.last(), recorded_at: commit.recorded_at() }
}

#[test]
fn heads_tell_how_far_each_order_reached_and_go_on_where_they_were() {
    block_on(async {
        let (_remote, store, client) = opened().await;
        let history: Arc<dyn History> = Arc::new(client.history());
        let mut follow = history.follow(From::Now).await.expect("the end");
        let order = first(2);
        let next = commit(&order.stored_end(), 3);
        for commit in [&order, &next] {
            written(&store, commit).await;
        }
        let one = timeout(PATIENCE, follow.next(1)).await.expect("in time").expect("a head");
        assert_eq!(one, [head(&order)]);
        let position = follow.position();
        drop(follow);
        let mut follow = history.follow(From::Position(position)).await.expect("it is known");
        let rest = timeout(PATIENCE, follow.next(10)).await.expect("in time").expect("a head");
        assert_eq!(rest, [head(&next)]);
        assert_eq!(ids(&history.read(order.order(), Version(3), 10).await.expect("read")), [next.id()]);
        assert_eq!(ids(&history.scan(None, 1).await.expect("scan")), [order.id()]);
    });
}

#[test]
fn pages_are_bounded_in_bytes_and_nothing_is_missing() {
    block_on(async {
        let (_remote, store, client) = opened().await;
        let large = format!("\"{}\"", "x".repeat(900_000));
        let mut end = StreamEnd::nothing(OrderId::generate());
        let mut expected = Vec::new();
        for _ in 0..12 {
            let next = commit_with(&end, 1, &large);
            written(&store, &next).await;
            end = next.stored_end();
            expected.push(next);
        }
        let (mut after, mut scanned) = (None, Vec::new());
        loop {
            let page = log(&client).scan(after, 1_000).await.expect("scan");
            assert!(page.len() <= 5, "a page of {}", page.len());
            let Some(last) = page.last() else { break };
            after = Some(last.key());
            scanned.extend(page);
        }
        assert_eq!(ids(&scanned), ids(&expected));
        assert!(scanned.iter().zip(&expected).all(|(one, other)| one.encoded() == other.encoded()));
        let read = log(&client).read(end.order(), Version(11), 1_000).await.expect("read");
        assert_eq!(ids(&read), ids(&expected[10..]));
    });
}

#[test]
fn who_follows_is_told_when_the_other_process_ends_and_goes_on_with_the_next() {
    block_on(async {
        let (remote, _, client) = opened().await;
        let mut follow = log(&client).follow(From::Now).await.expect("the end");
        let position = follow.position();
        let ended = {
            let served = remote.served.lock().expect("no panic").take().expect("it is open");
            let (ended, ()) = tokio::join!(timeout(PATIENCE, follow.next(1)), served.end());
            ended.expect("in time").expect_err("it has ended")
        };
        assert!(
            matches!(&ended, LogError::Store(StoreError::Away(why)) if why.contains("ended the stream")),
            "{ended}"
        );
        // Afterwards nothing comes any more, and it says so at once.
        assert!(follow.next(1).await.is_err());
        let gone = log(&client).follow(From::Now).await.err().expect("nobody is there");
        assert!(matches!(gone, LogError::Store(StoreError::Away(_))), "{gone}");

        let served = Served::new(Arc::new(remote.sqlite.opened()));
        let mut follow = log(&served.client()).follow(From::Position(position)).await.expect("it is known");
        let next = first(1);
        written(&remote.sqlite.opened(), &next).await;
        let given = timeout(PATIENCE, follow.next(1)).await.expect("in time").expect("a commit");
        assert_eq!(ids(&given), [next.id()]);
    });
}

/// Someone who takes a connection, reads the request, and says that.
fn saying(words: &'static [u8]) -> (Client, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = Client::new(&format!("http://{}", listener.local_addr().expect("an address")), "");
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        let mut request = [0; 4096];
        let read = socket.read(&mut request).expect("a request");
        assert!(read > 0, "a request");
        socket.write_all(words).expect("said");
        // Until the other side has had enough.
        let _ = socket.read(&mut request);
    });
    (client.expect("a client"), thread)
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n";

#[test]
fn who_says_nothing_for_long_is_gone_however_often_he_is_asked() {
    const OPENED: &str = "HTTP/1.1 200 OK\r\n\r\n{\"position\":\"01939c2e-0000-7000-8000-000000000000.-.0\"}\n{}\n";
    let (client, thread) = saying(OPENED.as_bytes());
    block_on(async {
        let mut follow = log(&client).follow(From::Now).await.expect("it is open");
        assert_eq!(follow.position().token, "0");
        let silent = async {
            loop {
                // Each time for a moment only, as a caller does that has other things to do.
                if let Ok(said) = timeout(Duration::from_millis(50), follow.next(1)).await {
                    return said.expect_err("it is silent");
                }
            }
        };
        let error = timeout(PATIENCE, silent).await.expect("it is noticed");
        assert!(matches!(&error, LogError::Store(StoreError::Away(why)) if why.contains("nothing came")), "{error}");
    });
    drop(client);
    thread.join().expect("it has said that");
}

#[test]
fn what_came_before_an_end_counts_and_its_reason_is_told() {
    let stored = first(1);
    let position = "01939c2e-0000-7000-8000-000000000000.-.0";
    let problem = r#"{"problem":{"type":"/problems/no-position","detail":"It is too old."}}"#;
    let said = format!(
        "{HEAD}{{\"position\":\"{position}\"}}\n{{\"position\":\"{position}\",\"commit\":{}}}\n{problem}\n",
        stored.encoded()
    );
    let (client, thread) = saying(said.leak().as_bytes());
    block_on(async {
        let mut follow = log(&client).follow(From::Now).await.expect("it is open");
        let given = timeout(PATIENCE, follow.next(10)).await.expect("in time").expect("a commit");
        assert_eq!(ids(&given), [stored.id()]);
        for _ in 0..2 {
            let error = timeout(PATIENCE, follow.next(10)).await.expect("in time").expect_err("it has ended");
            assert!(matches!(&error, LogError::NoPosition(why) if why == "It is too old."), "{error}");
        }
    });
    drop(client);
    thread.join().expect("it has said that");
}

#[test]
fn a_history_in_another_form_is_not_read() {
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"format\":2}\n";
    let (client, thread) = saying(said.as_bytes());
    block_on(async {
        let opened = timeout(PATIENCE, log(&client).follow(From::Now)).await.expect("in time");
        let error = opened.err().expect("nobody knows what it would mean").to_string();
        assert!(error.contains("another form (2; this one reads 1)"), "{error}");
    });
    drop(client);
    thread.join().expect("it has said that");
}

#[test]
fn what_is_no_history_is_not_taken_for_one() {
    for said in [
        "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n<html></html",
        "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"commits\":[]}",
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{}\n{",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (client, thread) = saying(said.as_bytes());
        block_on(async {
            let opened = timeout(PATIENCE, log(&client).follow(From::Now)).await.expect("in time");
            let error = opened.err().unwrap_or_else(|| panic!("{said:?} was taken for a log"));
            assert!(matches!(error, LogError::Store(StoreError::Away(_))), "{said:?}: {error}");
        });
        drop(client);
        thread.join().expect("it has said that");
    }
}

#[test]
fn a_process_is_in_the_list_as_it_says_and_until_it_leaves() {
    block_on(async {
        let (_remote, _, client) = opened().await;
        let nodes = client.nodes();
        let me = Process {
            instance: "ship/ä 1?&".to_owned(),
            name: "ship".to_owned(),
            http: "127.0.0.1:1".to_owned(),
            ops: "127.0.0.1:2".to_owned(),
            version: "0.2.0".to_owned(),
            roles: vec!["notification".to_owned(), "takings".to_owned()],
            active: vec!["takings".to_owned()],
            started_at: Timestamp::from_millis(7),
            heartbeat_ms: 2_000,
        };
        nodes.beat(&me).await.expect("taken");
        let seen = nodes.list().await.expect("a list");
        assert_eq!(seen.iter().map(|seen| &seen.process).collect::<Vec<_>>(), [&me]);
        assert!(seen[0].is_alive());
        nodes.leave(&me.instance).await.expect("left");
        assert!(nodes.list().await.expect("a list").is_empty());
        let huge = Process { name: "x".repeat(1_000), ..me };
        assert!(nodes.beat(&huge).await.is_err());
        let about = client.about().await.expect("it says what it is");
        assert_eq!(about.format, docket::history::wire::FORMAT);
    });
}

#[test]
fn a_position_of_nowhere_is_refused_before_anything_is_streamed() {
    block_on(async {
        let (_remote, _, client) = opened().await;
        let nowhere = Position {
            log: LogId(uuid::Uuid::now_v7()),
            token: "1 2.3 &%+".to_owned(),
            commit: Some(CommitId::generate()),
        };
        let history: Arc<dyn History> = Arc::new(client.history());
        let refused = history.follow(From::Position(nowhere)).await.err().expect("refused");
        assert!(matches!(refused, LogError::NoPosition(_)), "{refused}");
    });
}
