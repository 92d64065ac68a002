//! That virtual hosts are one's own, and that a node does as it is told.

use std::time::Duration;

use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::time::timeout;

use super::{MAX, MOMENT, eventually};
use crate::{Proxy, RabbitServer, RabbitVhost};

fn quorum() -> [(&'static str, AMQPValue); 1] {
    [("x-queue-type", AMQPValue::LongString("quorum".into()))]
}

fn bodies(bodies: &[&str]) -> Vec<Vec<u8>> {
    bodies.iter().map(|body| body.as_bytes().to_vec()).collect()
}

async fn channel(url: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

/// Publishes to the queue `q`, and waits until it is confirmed.
async fn publish(channel: &Channel, body: &str) -> lapin::Result<()> {
    let sent = channel.basic_publish(
        "".into(),
        "q".into(),
        BasicPublishOptions::default(),
        body.as_bytes(),
        BasicProperties::default(),
    );
    sent.await?.await.map(drop)
}

#[tokio::test]
async fn what_an_operator_does_in_a_virtual_host_is_done() {
    let vhost = RabbitVhost::new();
    assert!(vhost.queues().await.is_empty());
    vhost.declare("q", &quorum()).await;
    vhost.declare("other", &[]).await;
    assert_eq!(vhost.queues().await, ["other", "q"]);
    assert_eq!(vhost.queue("q").await.expect("a queue")["arguments"]["x-queue-type"], "quorum");

    vhost.publish("", "q", &bodies(&["1", "2", "3"])).await;
    eventually("they are there", async || vhost.waiting("q").await == Some(3)).await;
    let seen: Vec<Vec<u8>> = vhost.peek("q", 2).await.into_iter().map(|(_, body)| body).collect();
    assert_eq!(seen, bodies(&["1", "2"]));
    eventually("they are there again", async || vhost.waiting("q").await == Some(3)).await;
    assert_eq!(vhost.purge("q").await, 3);
    assert_eq!(vhost.waiting("q").await, Some(0));
    vhost.delete("q").await;
    assert_eq!((vhost.waiting("q").await, vhost.queue("q").await), (None, None));
}

#[tokio::test]
async fn a_virtual_host_goes_with_its_owner_and_those_beside_it_stay() {
    let (gone, stays) = (RabbitVhost::new(), RabbitVhost::new());
    stays.declare("q", &[]).await;
    let uri = gone.uri().to_owned();
    channel(&uri).await.expect("it is there");
    drop(gone);
    assert!(channel(&uri).await.is_err());
    assert_eq!(stays.waiting("q").await, Some(0));
}

#[tokio::test]
async fn cut_off_without_a_word_a_connection_never_hears_anything_again_and_new_ones_do() {
    let vhost = RabbitVhost::new();
    vhost.declare("q", &quorum()).await;
    let proxy = Proxy::raw_before(vhost.address());
    let uri = vhost.uri_at(proxy.address());
    let (_connection, old) = channel(&uri).await.expect("a connection");
    publish(&old, "1").await.expect("confirmed");

    proxy.stall();
    let mut publishing = std::pin::pin!(publish(&old, "2"));
    assert!(timeout(MOMENT, &mut publishing).await.is_err(), "it was confirmed");
    proxy.pass();
    timeout(MAX, publishing).await.expect("an answer").expect("confirmed");

    proxy.forget_connections();
    assert!(timeout(MOMENT, publish(&old, "3")).await.is_err(), "somebody answered");
    let (_connection, new) = channel(&uri).await.expect("a connection");
    publish(&new, "4").await.expect("confirmed");
    eventually("it arrives", async || vhost.waiting("q").await == Some(3)).await;

    proxy.drop_connections();
    timeout(MAX, publish(&new, "5")).await.expect("an answer").expect_err("it is broken");
    assert!(channel(&uri).await.is_err());
}

/// One node for all of it: each takes its time to start.
#[tokio::test]
async fn a_node_is_out_of_memory_stands_still_and_is_killed_and_keeps_what_it_confirmed() {
    let mut server = RabbitServer::start().await;
    let vhost = server.vhost();
    vhost.declare("q", &quorum()).await;
    let (_connection, old) = channel(vhost.uri()).await.expect("a connection");
    publish(&old, "1").await.expect("confirmed");

    server.alarm().await;
    let (consuming, consumer) = channel(vhost.uri()).await.expect("a connection");
    let mut publishing = std::pin::pin!(publish(&old, "2"));
    assert!(timeout(MOMENT, &mut publishing).await.is_err(), "it was confirmed");
    let consume = consumer.basic_consume("q".into(), "c".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut consumed = consume.await.expect("a consumer");
    let delivered = timeout(MAX, futures_util::StreamExt::next(&mut consumed)).await.expect("it delivers");
    assert_eq!(delivered.expect("a delivery").expect("a delivery").data, b"1");
    server.calm().await;
    timeout(MAX, publishing).await.expect("an answer").expect("confirmed");
    consuming.close(200, "".into()).await.expect("closed");

    server.freeze();
    let mut publishing = std::pin::pin!(publish(&old, "3"));
    assert!(timeout(MOMENT, &mut publishing).await.is_err(), "it was confirmed");
    server.thaw();
    timeout(MAX, publishing).await.expect("an answer").expect("confirmed");

    server.kill();
    assert!(channel(vhost.uri()).await.is_err());
    server.restart().await;
    eventually("all that it confirmed is there", async || vhost.waiting("q").await == Some(3)).await;
    let gone = timeout(Duration::from_secs(5), publish(&old, "4")).await;
    assert!(!matches!(gone, Ok(Ok(()))), "the old connection has survived");
}
