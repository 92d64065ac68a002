//! What every adapter of the broker has to do while nothing goes wrong but what a test does on purpose. An adapter's tests
//! are one line: `actors::broker_conformance!(MyAdapter);`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout};

use super::PATIENCE;
use crate::broker::{Broker, BrokerError, Consume, Delivery, Message, Publish, Subscription, Tag};
use crate::event::EventId;
use crate::order::OrderId;

/// Long enough to say that nothing comes.
const MOMENT: Duration = Duration::from_millis(300);

/// A broker of a test's own, with what somebody beside docket may do to it.
#[async_trait]
pub trait Adapter: Send + Sync + Sized {
    /// One without queues.
    async fn new() -> Self;

    /// The port.
    fn broker(&self) -> Arc<dyn Broker>;

    /// Empties a subscriber's one queue.
    async fn purge(&self, subscriber: &'static str);

    /// Deletes a subscriber's one queue.
    async fn delete(&self, subscriber: &'static str);

    /// Puts anything into a subscriber's one queue.
    async fn put(&self, subscriber: &'static str, body: &[u8]);
}

const ANALYTICS: Subscription = Subscription { subscriber: "analytics", partitions: 1, prefetch: 100 };
const NOTIFICATION: Subscription = Subscription { subscriber: "notification", partitions: 1, prefetch: 100 };

/// An event of an order, which says which one it is.
pub fn message(order: OrderId, number: usize) -> Message {
    Message {
        id: EventId::generate(),
        event_type: "order.created".to_owned(),
        order,
        correlation_id: "c-1".to_owned(),
        body: format!("{order} {number}").into_bytes(),
    }
}

/// The first events of an order.
pub fn messages(count: usize) -> Vec<Message> {
    let order = OrderId::generate();
    (0..count).map(|number| message(order, number)).collect()
}

/// In good time.
///
/// # Panics
/// When it is not.
#[track_caller]
pub fn soon<T>(what: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move { timeout(PATIENCE, what).await.unwrap_or_else(|_| panic!("it never came, at {place}")) }
}

/// So many deliveries, and not one more at once.
///
/// # Panics
/// When they do not come.
pub async fn next(consume: &mut Box<dyn Consume>, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        let max = count - deliveries.len();
        let some = soon(consume.next(max)).await.expect("a delivery");
        assert!((1..=max).contains(&some.len()), "{} at once, at most {max}", some.len());
        deliveries.extend(some);
    }
    deliveries
}

/// What is in them.
pub fn bodies(deliveries: &[Delivery]) -> Vec<&[u8]> {
    deliveries.iter().map(|delivery| delivery.body.as_slice()).collect()
}

/// What is in them.
pub fn contents(messages: &[Message]) -> Vec<&[u8]> {
    messages.iter().map(|message| message.body.as_slice()).collect()
}

async fn publisher(broker: &Arc<dyn Broker>) -> Box<dyn Publish> {
    soon(broker.publisher()).await.expect("a connection")
}

/// A connection for consuming.
///
/// # Panics
/// When there is none.
pub async fn consumer(broker: &Arc<dyn Broker>, subscription: &Subscription) -> Box<dyn Consume> {
    soon(broker.consume(subscription)).await.expect("a connection")
}

/// Publishes, and says how many had no queue.
///
/// # Panics
/// When they are not published.
pub async fn publish(publish: &mut Box<dyn Publish>, messages: &[Message]) -> usize {
    soon(publish.publish(messages)).await.expect("published").unroutable
}

async fn acknowledge(consume: &mut Box<dyn Consume>, up_to: Tag) {
    soon(consume.acknowledge(up_to)).await.expect("acknowledged");
}

/// Asserts that nothing comes.
///
/// # Panics
/// When something does.
pub async fn nothing_comes(consume: &mut Box<dyn Consume>) {
    let next = timeout(MOMENT, consume.next(10)).await;
    assert!(next.is_err(), "{next:?}");
}

/// Waits until so many wait in the queues.
///
/// # Panics
/// When there are never so many.
pub async fn until_waiting(consume: &mut Box<dyn Consume>, count: u64) {
    let until = Instant::now() + PATIENCE;
    loop {
        let waiting = soon(consume.waiting()).await.expect("an answer");
        if waiting == count {
            return;
        }
        assert!(Instant::now() < until, "{waiting} wait, never {count}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// In their order, to every subscriber.
pub async fn all_is_delivered_in_order<A: Adapter>() {
    let adapter = A::new().await;
    let broker = adapter.broker();
    let mut analytics = consumer(&broker, &ANALYTICS).await;
    let mut notification = consumer(&broker, &NOTIFICATION).await;
    let sent = messages(300);
    let mut publisher = publisher(&broker).await;
    assert_eq!(publish(&mut publisher, &sent[..1]).await, 0);
    assert_eq!(publish(&mut publisher, &sent[1..]).await, 0);
    for consume in [&mut analytics, &mut notification] {
        let mut came = Vec::new();
        while came.len() < sent.len() {
            let some = soon(consume.next(1_000)).await.expect("a delivery");
            acknowledge(consume, some[some.len() - 1].tag).await;
            came.extend(some);
        }
        assert_eq!(bodies(&came), contents(&sent));
        assert!(came.windows(2).all(|pair| pair[0].tag < pair[1].tag), "tags grow");
    }
    nothing_comes(&mut analytics).await;
}

/// What was not acknowledged comes again, before all else and in its order; what was, never.
pub async fn what_is_not_acknowledged_comes_again<A: Adapter>() {
    let adapter = A::new().await;
    let broker = adapter.broker();
    let mut first = consumer(&broker, &ANALYTICS).await;
    let sent = messages(10);
    publish(&mut publisher(&broker).await, &sent).await;
    let came = next(&mut first, 6).await;
    acknowledge(&mut first, came[3].tag).await;
    // Once more, and an earlier one: both are acknowledged already.
    acknowledge(&mut first, came[3].tag).await;
    acknowledge(&mut first, came[1].tag).await;
    drop(first);
    let mut second = consumer(&broker, &ANALYTICS).await;
    let came = next(&mut second, 6).await;
    assert_eq!(bodies(&came), contents(&sent[4..]));
    acknowledge(&mut second, came[5].tag).await;
    nothing_comes(&mut second).await;
    until_waiting(&mut second, 0).await;
}

/// Also while deliveries arrive.
pub async fn a_dropped_future_loses_nothing<A: Adapter>() {
    let adapter = A::new().await;
    let broker = adapter.broker();
    let mut consume = consumer(&broker, &ANALYTICS).await;
    let mut publish = publisher(&broker).await;
    let sent = messages(50);
    let mut came = Vec::new();
    for message in &sent {
        tokio::join!(
            async {
                drop(timeout(Duration::ZERO, consume.next(1)).await.map(|next| came.extend(next.expect("no error"))))
            },
            async {
                assert_eq!(soon(publish.publish(std::slice::from_ref(message))).await.expect("published").unroutable, 0)
            },
        );
    }
    let left = sent.len() - came.len();
    came.extend(next(&mut consume, left).await);
    assert_eq!(bodies(&came), contents(&sent));
}

/// Not more than that are handed out without an acknowledgement.
pub async fn prefetch_is_a_limit<A: Adapter>() {
    let adapter = A::new().await;
    let broker = adapter.broker();
    let mut consume = consumer(&broker, &Subscription { prefetch: 3, ..ANALYTICS }).await;
    let sent = messages(8);
    publish(&mut publisher(&broker).await, &sent).await;
    let came = next(&mut consume, 3).await;
    nothing_comes(&mut consume).await;
    until_waiting(&mut consume, 5).await;
    acknowledge(&mut consume, came[1].tag).await;
    let came = next(&mut consume, 2).await;
    assert_eq!(bodies(&came), contents(&sent[3..5]));
    nothing_comes(&mut consume).await;
}

/// Without a queue there is nobody for it, and that is no error.
pub async fn without_a_queue_nothing_is_kept<A: Adapter>() {
    let adapter = A::new().await;
    let broker = adapter.broker();
    let mut publisher = publisher(&broker).await;
    assert_eq!(publish(&mut publisher, &messages(20)).await, 20);
    let mut consume = consumer(&broker, &ANALYTICS).await;
    let sent = messages(20);
    assert_eq!(publish(&mut publisher, &sent).await, 0);
    assert_eq!(bodies(&next(&mut consume, 20).await), contents(&sent));
}

/// Two at once: one of them gets everything, and the other when that one is gone.
pub async fn one_consumer_is_active<A: Adapter>() {
    let adapter = A::new().await;
    let broker = adapter.broker();
    let mut first = consumer(&broker, &ANALYTICS).await;
    let mut second = consumer(&broker, &ANALYTICS).await;
    let sent = messages(10);
    publish(&mut publisher(&broker).await, &sent).await;
    assert_eq!(bodies(&next(&mut first, 10).await), contents(&sent));
    nothing_comes(&mut second).await;
    drop(first);
    assert_eq!(bodies(&next(&mut second, 10).await), contents(&sent));
}

/// Events of an order keep their order, whatever the number of queues.
pub async fn partitions_keep_an_order_together<A: Adapter>() {
    let adapter = A::new().await;
    let broker = adapter.broker();
    let mut consume = consumer(&broker, &Subscription { partitions: 3, prefetch: 1_000, ..ANALYTICS }).await;
    let orders: Vec<OrderId> = (0..30).map(|_| OrderId::generate()).collect();
    let sent: Vec<Message> = (0..10).flat_map(|n| orders.iter().map(move |order| message(*order, n))).collect();
    assert_eq!(publish(&mut publisher(&broker).await, &sent).await, 0);
    let came = next(&mut consume, sent.len()).await;
    let mut of_order: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for delivery in &came {
        let text = std::str::from_utf8(&delivery.body).expect("text");
        let (order, number) = text.split_once(' ').expect("an order and a number");
        of_order.entry(order.to_owned()).or_default().push(number.parse().expect("a number"));
    }
    assert_eq!(of_order.len(), orders.len());
    assert!(of_order.values().all(|numbers| numbers.iter().copied().eq(0..10)), "{of_order:?}");
    assert!(came.windows(2).all(|pair| pair[0].tag < pair[1].tag), "what is acknowledged up to one was handed out");
    acknowledge(&mut consume, came[came.len() - 1].tag).await;
    drop(consume);
    let mut again = consumer(&broker, &Subscription { partitions: 3, prefetch: 1_000, ..ANALYTICS }).await;
    nothing_comes(&mut again).await;
}

/// An emptied queue goes on to work.
pub async fn a_purged_queue_is_empty<A: Adapter>() {
    let adapter = A::new().await;
    let broker = adapter.broker();
    drop(consumer(&broker, &ANALYTICS).await);
    let mut publisher = publisher(&broker).await;
    publish(&mut publisher, &messages(10)).await;
    adapter.purge(ANALYTICS.subscriber).await;
    let mut consume = consumer(&broker, &ANALYTICS).await;
    nothing_comes(&mut consume).await;
    let sent = messages(1);
    publish(&mut publisher, &sent).await;
    assert_eq!(bodies(&next(&mut consume, 1).await), contents(&sent));
}

/// Whoever consumes a deleted queue is told so, and declares it again.
pub async fn a_deleted_queue_is_told_and_declared_again<A: Adapter>() {
    let adapter = A::new().await;
    let broker = adapter.broker();
    let mut consume = consumer(&broker, &ANALYTICS).await;
    adapter.delete(ANALYTICS.subscriber).await;
    let told = soon(consume.next(10)).await.expect_err("it is gone");
    assert!(matches!(told, BrokerError::Away(_)), "{told:?}");
    drop(consume);
    let mut consume = consumer(&broker, &ANALYTICS).await;
    let sent = messages(1);
    assert_eq!(publish(&mut publisher(&broker).await, &sent).await, 0);
    assert_eq!(bodies(&next(&mut consume, 1).await), contents(&sent));
}

/// What nobody can read is kept beside, and comes back when somebody can.
pub async fn what_is_set_aside_comes_back_when_it_can_be_read<A: Adapter>() {
    let adapter = A::new().await;
    let broker = adapter.broker();
    let mut consume = consumer(&broker, &ANALYTICS).await;
    for body in [&b"not ours"[..], b"from the future", b"\xff\x00"] {
        adapter.put(ANALYTICS.subscriber, body).await;
    }
    let came = next(&mut consume, 3).await;
    for delivery in &came {
        soon(consume.set_aside(delivery, "it cannot be read")).await.expect("set aside");
    }
    acknowledge(&mut consume, came[2].tag).await;
    assert_eq!(soon(consume.put_back(&|_| false)).await.expect("looked through"), 0);
    nothing_comes(&mut consume).await;
    let put_back = soon(consume.put_back(&|body| body == b"from the future")).await.expect("looked through");
    assert_eq!(put_back, 1);
    let came = next(&mut consume, 1).await;
    assert_eq!(came[0].body, b"from the future");
    acknowledge(&mut consume, came[0].tag).await;
    assert_eq!(soon(consume.put_back(&|body| body == b"from the future")).await.expect("looked through"), 0);
    // The others are still there.
    drop(consume);
    let mut again = consumer(&broker, &ANALYTICS).await;
    assert_eq!(soon(again.put_back(&|_| true)).await.expect("looked through"), 2);
}

/// The tests of an adapter: each function of the suite as a test of its own.
#[macro_export]
macro_rules! broker_conformance {
    ($adapter:ty) => {
        $crate::broker_conformance! { $adapter:
            all_is_delivered_in_order, what_is_not_acknowledged_comes_again, a_dropped_future_loses_nothing,
            prefetch_is_a_limit, without_a_queue_nothing_is_kept, one_consumer_is_active,
            partitions_keep_an_order_together, a_purged_queue_is_empty, a_deleted_queue_is_told_and_declared_again,
            what_is_set_aside_comes_back_when_it_can_be_read,
        }
    };
    ($adapter:ty: $($name:ident),+ $(,)?) => {
        mod conformance {
            use super::*;

            $(#[::core::prelude::v1::test]
            fn $name() {
                $crate::testing::conformance::block_on($crate::testing::conformance::broker::$name::<$adapter>());
            })+
        }
    };
}

#[cfg(test)]
mod tests;
