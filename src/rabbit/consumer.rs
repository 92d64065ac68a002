//! Consumes one subscriber's queues, all of them on one channel: their deliveries have one sequence of tags, and are
//! acknowledged together up to one of them.
//!
//! What nobody can read is published to the queue beside, on a connection of its own: a broker that is short of memory
//! holds up every connection that publishes, and with this one it would hold up acknowledgements.

mod aside;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actors::broker::{BrokerError, Consume, Delivery, Subscription, Tag};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt, stream};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Acker, BasicProperties, Channel};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::Rabbit;
use super::connection::{Link, away, lost};
use super::topology::{self, Names};
use aside::{Aside, Origin};
pub(super) use aside::{header, was_in_the_way};

/// How often it is asked whether the connection is still there, while nothing comes.
const LOOKED_EVERY: Duration = Duration::from_secs(1);

/// A connection for consuming. After an error it is used no more.
pub(super) struct Consumer {
    rabbit: Rabbit,
    names: Names,
    link: Link,
    /// Never used for anything that may fail, which would close it.
    _channel: Channel,
    /// For questions.
    asking: Channel,
    deliveries: SelectAll<BoxStream<'static, Result<lapin::message::Delivery, BrokerError>>>,
    /// Those that came before their turn: each queue's come by themselves, and only their tags say which was first. What
    /// is acknowledged up to one of them must not be still in here.
    early: BTreeMap<u64, lapin::message::Delivery>,
    /// The tag whose turn it is. A channel has one after the other, and on this one nothing else comes.
    turn: u64,
    /// Those that were handed out and not acknowledged.
    unacknowledged: BTreeMap<Tag, HandedOut>,
    acknowledged: Tag,
    /// Where things are set aside, connected when it is needed first, and again when it has failed.
    aside: Arc<Mutex<Option<Aside>>>,
    failed: Option<BrokerError>,
}

/// What remains of a delivery until it is acknowledged.
struct HandedOut {
    acker: Acker,
    origin: Origin,
    properties: BasicProperties,
}

impl Consumer {
    pub(super) async fn open(rabbit: &Rabbit, subscription: &Subscription) -> Result<Self, BrokerError> {
        let link = rabbit.connect(&format!("consumer {}", subscription.subscriber)).await?;
        let names = topology::declare(&link, &rabbit.settings, subscription).await?;
        let channel = link.channel().await?;
        // It counts for each queue by itself: that for all together is not to be had with quorum queues.
        let prefetch = (subscription.prefetch / names.count()).max(1);
        link.answer("set the prefetch", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let mut deliveries = SelectAll::new();
        for queue in &names.queues {
            deliveries.push(consume(&link, &channel, queue).await?);
        }
        let asking = link.channel().await?;
        Ok(Self {
            rabbit: rabbit.clone(),
            names,
            link,
            _channel: channel,
            asking,
            deliveries,
            early: BTreeMap::new(),
            turn: 1,
            unacknowledged: BTreeMap::new(),
            acknowledged: Tag(0),
            aside: Arc::default(),
            failed: None,
        })
    }

    /// The next one; dropping the future loses nothing.
    async fn next_one(&mut self) -> Result<lapin::message::Delivery, BrokerError> {
        loop {
            if let Some(delivery) = self.in_turn() {
                return Ok(delivery);
            }
            tokio::select! {
                biased;
                next = self.deliveries.next() => {
                    self.came(next.unwrap_or_else(|| Err(lost()))?);
                    continue;
                }
                // The driver says it when it finds out; this does not rest on its saying so.
                () = sleep(LOOKED_EVERY) => {}
            }
            if !self.link.is_alive() {
                return Err(lost());
            }
        }
    }

    fn came(&mut self, delivery: lapin::message::Delivery) {
        self.early.insert(delivery.delivery_tag, delivery);
    }

    fn in_turn(&mut self) -> Option<lapin::message::Delivery> {
        let delivery = self.early.remove(&self.turn)?;
        self.turn += 1;
        Some(delivery)
    }

    fn handed_out(&mut self, delivery: lapin::message::Delivery) -> Delivery {
        let lapin::message::Delivery { delivery_tag, exchange, routing_key, properties, data, acker, .. } = delivery;
        let tag = Tag(delivery_tag);
        let origin = Origin { exchange, routing_key };
        self.unacknowledged.insert(tag, HandedOut { acker, origin, properties });
        Delivery { tag, body: data }
    }

    async fn next_ones(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let first = self.next_one().await?;
        let mut ready = vec![self.handed_out(first)];
        while ready.len() < max {
            if let Some(delivery) = self.in_turn() {
                ready.push(self.handed_out(delivery));
                continue;
            }
            match self.deliveries.next().now_or_never() {
                Some(Some(Ok(delivery))) => self.came(delivery),
                Some(Some(Err(error))) => {
                    self.failed = Some(error);
                    break;
                }
                Some(None) | None => break,
            }
        }
        Ok(ready)
    }

    fn check(&self) -> Result<(), BrokerError> {
        self.failed.clone().map_or(Ok(()), Err)
    }
}

/// The connection for what is set aside: that one, when it can still be used. Whoever fails with it, or stops waiting for
/// it, drops it: a confirm that nobody waited for would be taken for a later one's.
async fn usable(aside: Option<Aside>, rabbit: &Rabbit, names: &Names) -> Result<Aside, BrokerError> {
    match aside.filter(Aside::is_usable) {
        Some(aside) => Ok(aside),
        None => Aside::open(rabbit, names.clone()).await,
    }
}

#[async_trait]
impl Consume for Consumer {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        self.check()?;
        let next = self.next_ones(max).await;
        if let Err(error) = &next {
            self.failed = Some(error.clone());
        }
        next
    }

    async fn acknowledge(&mut self, up_to: Tag) -> Result<(), BrokerError> {
        self.check()?;
        if up_to <= self.acknowledged {
            return Ok(());
        }
        let Some(HandedOut { acker, .. }) = self.unacknowledged.get(&up_to) else {
            return Err(BrokerError::Away(format!("delivery {} is not of this connection", up_to.0)));
        };
        let acknowledging = acker.ack(BasicAckOptions { multiple: true });
        // Whatever became of it: a second acknowledgement of one delivery would be an error of ours.
        if self.link.answer("acknowledge", acknowledging).await? {
            self.acknowledged = up_to;
            self.unacknowledged = self.unacknowledged.split_off(&Tag(up_to.0 + 1));
            return Ok(());
        }
        self.failed = Some(lost());
        Err(lost())
    }

    async fn waiting(&mut self) -> Result<u64, BrokerError> {
        self.check()?;
        let mut waiting = 0;
        for queue in &self.names.queues {
            waiting += waiting_in(&self.link, &self.asking, queue).await?;
        }
        Ok(waiting)
    }

    fn set_aside(&self, delivery: &Delivery, reason: &str) -> BoxFuture<'static, Result<(), BrokerError>> {
        let Some(HandedOut { origin, properties, .. }) = self.unacknowledged.get(&delivery.tag) else {
            let error = BrokerError::Away(format!("delivery {} is not of this connection", delivery.tag.0));
            return Box::pin(std::future::ready(Err(error)));
        };
        let (origin, properties) = (origin.clone(), properties.clone());
        let (body, reason) = (delivery.body.clone(), reason.to_owned());
        let (rabbit, names, aside) = (self.rabbit.clone(), self.names.clone(), Arc::clone(&self.aside));
        Box::pin(async move {
            let mut aside = aside.lock().await;
            let open = usable(aside.take(), &rabbit, &names).await?;
            open.set_aside(&body, properties, &origin, &reason).await?;
            *aside = Some(open);
            Ok(())
        })
    }

    async fn put_back(&mut self, readable: &(dyn for<'a> Fn(&'a [u8]) -> bool + Sync)) -> Result<u64, BrokerError> {
        self.check()?;
        let dead = self.names.dead.clone();
        // Nearly always: then no connection is needed.
        if waiting_in(&self.link, &self.asking, &dead).await? == 0 {
            return Ok(0);
        }
        // Something is being set aside, or waits for a broker that takes nothing.
        let Ok(mut aside) = self.aside.try_lock() else { return Ok(0) };
        let open = usable(aside.take(), &self.rabbit, &self.names).await?;
        let put_back = open.put_back(readable).await?;
        *aside = Some(open);
        Ok(put_back)
    }
}

/// The deliveries of a queue, and an error when they end.
async fn consume(
    link: &Link,
    channel: &Channel,
    queue: &str,
) -> Result<BoxStream<'static, Result<lapin::message::Delivery, BrokerError>>, BrokerError> {
    let doing = format!("consume the queue {queue}");
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    let deliveries = link.answer(&doing, consuming).await?;
    let deliveries = deliveries.map(move |next| next.map_err(|error| away(&doing, &error)));
    let end = stream::once(std::future::ready(Err(ended(queue))));
    Ok(deliveries.chain(end).boxed())
}

async fn waiting_in(link: &Link, channel: &Channel, queue: &str) -> Result<u64, BrokerError> {
    topology::messages_in(link, channel, queue).await?.ok_or_else(|| ended(queue))
}

fn ended(queue: &str) -> BrokerError {
    BrokerError::Away(format!("nothing comes from the queue {queue} any more: somebody has deleted it, or is about to"))
}
