//! Shows what nobody can read, and takes none of it away.
//!
//! A broker shows a message only to whoever takes it. So each is taken, and all are given back when this ends, however it
//! ends. The queue has a limit of deliveries that is never reached, so what is given back stands before everything else, in
//! its order. Whoever looks at the same moment sees less; in one process one looks after the other.

use actors::broker::BrokerError;
use actors::clock::Timestamp;
use actors::subscriber::letters::{SetAside, Unreadable};
use async_trait::async_trait;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, BasicNackOptions};
use tokio::time::Instant;

use super::Rabbit;
use super::connection::Link;
use super::consumer::{header, was_in_the_way};
use super::topology;

/// Why it was set aside, in words.
pub(super) const REASON: &str = "x-docket-reason";
/// When.
pub(super) const AT: &str = "x-docket-at";
/// What is said of what somebody else put there.
const WITHOUT_REASON: &str = "somebody put it there without saying why";

#[async_trait]
impl SetAside for Rabbit {
    async fn unreadable(&self, subscriber: &str, limit: usize) -> Result<Vec<Unreadable>, BrokerError> {
        let looking = async {
            let _alone = self.looking.lock().await;
            let link = self.connect(&format!("look at dead letters {subscriber}")).await?;
            look(&link, &topology::dead_queue(subscriber), limit).await
        };
        self.within("look at dead letters", looking).await
    }
}

/// At most `limit`, and as many as there is time for.
async fn look(link: &Link, queue: &str, limit: usize) -> Result<Vec<Unreadable>, BrokerError> {
    // One that is not there closes its channel.
    if topology::messages_in(link, &link.channel().await?, queue).await?.is_none() {
        return Ok(Vec::new());
    }
    let channel = link.channel().await?;
    let until = Instant::now() + link.answer_within() / 2;
    let (mut seen, mut last) = (Vec::new(), None);
    while seen.len() < limit && Instant::now() < until {
        let getting = channel.basic_get(queue.into(), BasicGetOptions::default());
        let Some(message) = link.answer("look at dead letters", getting).await? else { break };
        if !was_in_the_way(&message.properties) {
            seen.push(read(&message));
        }
        last = Some(message);
    }
    if let Some(last) = last {
        let returning = last.acker.nack(BasicNackOptions { multiple: true, requeue: true });
        link.answer("return dead letters", returning).await?;
    }
    Ok(seen)
}

fn read(message: &BasicGetMessage) -> Unreadable {
    let properties = &message.properties;
    let message_id = properties.message_id().as_ref().map(ToString::to_string);
    let reason = header(properties, REASON).unwrap_or_else(|| WITHOUT_REASON.to_owned());
    let at: Option<Timestamp> = header(properties, AT).and_then(|at| at.parse().ok());
    Unreadable::new(&message.data, message_id, reason, at)
}
