//! The queue beside: what is in it, and that nothing goes round in circles.

use actors::broker::Subscription;
use actors::order::OrderId;
use actors::subscriber::letters::SetAside;
use actors::testing::conformance::broker::{consumer, messages, next, nothing_comes, publish, soon};
use docket::rabbit::{Rabbit, Settings};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::{ANALYTICS, Beside, Host, broker, settings};

const DEAD: &str = "orders.analytics.dead";

fn header(message: &lapin::message::BasicGetMessage, name: &str) -> Option<String> {
    let value = message.properties.headers().as_ref()?.inner().get(name)?;
    value.as_long_string().map(ToString::to_string)
}

async fn until_count(beside: &Beside, queue: &str, count: u32) {
    let reached = async {
        while beside.count(queue).await != count {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon(reached).await;
}

#[tokio::test]
async fn it_is_kept_as_it_came_with_the_reason_and_where_it_came_from() {
    let host = Host::new();
    let mut consume = consumer(&host.rabbit(&[]), &ANALYTICS).await;
    let beside = host.beside().await;
    let mut headers = FieldTable::default();
    headers.insert("of-theirs".into(), AMQPValue::LongString("kept".into()));
    headers.insert("x-death".into(), AMQPValue::LongString("of an earlier life".into()));
    let properties = BasicProperties::default().with_message_id("m-1".into()).with_headers(headers);
    beside.put("orders", "order.nonsense", b"\xffnot ours", properties).await;
    let came = next(&mut consume, 1).await;
    let reason = "it is not an envelope: ".to_owned() + &"é".repeat(1_000);
    soon(consume.set_aside(&came[0], &reason)).await.expect("set aside");
    soon(consume.acknowledge(came[0].tag)).await.expect("acknowledged");
    let message = beside.take(DEAD).await.expect("a message");
    assert_eq!(message.data, b"\xffnot ours");
    assert_eq!(message.properties.message_id().as_ref().map(|id| id.as_str()), Some("m-1"));
    assert_eq!(*message.properties.delivery_mode(), Some(2));
    assert_eq!(header(&message, "of-theirs").as_deref(), Some("kept"));
    assert!(header(&message, "x-docket-reason").is_some_and(|said| reason.starts_with(&said) && said.len() > 900));
    assert_eq!(header(&message, "x-docket-exchange").as_deref(), Some("orders"));
    assert_eq!(header(&message, "x-docket-routing-key").as_deref(), Some("order.nonsense"));
    assert_eq!(header(&message, "x-death"), None);
}

#[tokio::test]
async fn what_a_full_queue_loses_is_not_put_there_and_never_put_back() {
    let host = Host::new();
    let short = Settings { queue_messages_max: 10, ..settings(host.0.uri()) };
    let broker = broker(&short, &[ANALYTICS]);
    let mut publisher = soon(broker.publisher()).await.expect("a connection");
    let beside = host.beside().await;
    publish(&mut publisher, &messages(30)).await;
    // An operator's policy may have it put there all the same.
    let mut headers = FieldTable::default();
    headers.insert("x-first-death-reason".into(), AMQPValue::LongString("maxlen".into()));
    let lost = BasicProperties::default().with_headers(headers);
    beside.put("orders.dead", "analytics", b"lost", lost).await;
    beside.put("orders.dead", "analytics", b"by hand", BasicProperties::default()).await;
    assert_eq!(beside.count(DEAD).await, 2, "nothing else is there");
    let mut consume = consumer(&broker, &ANALYTICS).await;
    assert_eq!(next(&mut consume, 10).await.len(), 10);
    assert_eq!(soon(consume.put_back(&|_| true)).await.expect("looked through"), 1);
    assert_eq!(next(&mut consume, 1).await[0].body, b"by hand");
    until_count(&beside, DEAD, 0).await;
    nothing_comes(&mut consume).await;
}

#[tokio::test]
async fn what_comes_back_comes_to_the_queue_of_its_order() {
    let host = Host::new();
    let subscription = Subscription { partitions: 4, ..ANALYTICS };
    let broker = host.rabbit(std::slice::from_ref(&subscription));
    let mut consume = consumer(&broker, &subscription).await;
    let beside = host.beside().await;
    let order = OrderId::generate();
    let bodies: Vec<String> = (0..20).map(|n| format!(r#"{{"subject":"{order}","n":{n}}}"#)).collect();
    for body in &bodies {
        beside.put("orders.dead", "analytics", body.as_bytes(), BasicProperties::default()).await;
    }
    assert_eq!(soon(consume.put_back(&|_| true)).await.expect("looked through"), 20);
    let came = next(&mut consume, 20).await;
    assert!(came.iter().map(|delivery| &delivery.body[..]).eq(bodies.iter().map(String::as_bytes)), "{came:?}");
}

#[tokio::test]
async fn many_that_nobody_can_read_stay_and_hide_none_that_somebody_can() {
    let host = Host::new();
    let mut consume = consumer(&host.rabbit(&[]), &ANALYTICS).await;
    let beside = host.beside().await;
    for n in 0..300 {
        let body = if n == 250 { "readable".to_owned() } else { format!("nonsense {n}") };
        beside.put("orders.dead", "analytics", body.as_bytes(), BasicProperties::default()).await;
    }
    let readable = |body: &[u8]| body == b"readable";
    assert_eq!(soon(consume.put_back(&readable)).await.expect("looked through"), 1);
    for _ in 0..3 {
        assert_eq!(soon(consume.put_back(&readable)).await.expect("looked through"), 0);
    }
    until_count(&beside, DEAD, 299).await;
    assert_eq!(next(&mut consume, 1).await[0].body, b"readable");
}

#[tokio::test]
async fn what_is_looked_at_stays_as_it_was() {
    let host = Host::new();
    let rabbit = Rabbit::new(&settings(host.0.uri()), "test", [ANALYTICS]);
    assert_eq!(soon(rabbit.unreadable("analytics", 10)).await.expect("no queue"), []);
    let mut consume = consumer(&host.rabbit(&[]), &ANALYTICS).await;
    let beside = host.beside().await;
    let bodies: Vec<_> = (0..30).map(|n| format!("nonsense {n}")).collect();
    for body in &bodies {
        beside.put("orders", "order.nonsense", body.as_bytes(), BasicProperties::default()).await;
    }
    for delivery in next(&mut consume, 30).await {
        soon(consume.set_aside(&delivery, "not an envelope")).await.expect("set aside");
        soon(consume.acknowledge(delivery.tag)).await.expect("acknowledged");
    }
    beside.put("orders.dead", "analytics", b"by hand", BasicProperties::default()).await;
    for _ in 0..3 {
        let seen = soon(rabbit.unreadable("analytics", 20)).await.expect("looked at");
        assert!(seen.iter().map(|one| &one.excerpt).eq(&bodies[..20]), "{seen:?}");
        assert!(seen.iter().all(|one| one.reason == "not an envelope" && one.at.is_some()), "{seen:?}");
        until_count(&beside, DEAD, 31).await;
    }
    let seen = soon(rabbit.unreadable("analytics", 100)).await.expect("looked at");
    let last = seen.last().expect("one by hand");
    assert_eq!((seen.len(), last.excerpt.as_str(), last.at), (31, "by hand", None));
    until_count(&beside, DEAD, 31).await;
    assert_eq!(soon(consume.put_back(&|_| true)).await.expect("looked through"), 31, "they can still be put back");
}
