//! A RabbitMQ: whether it lets us in and does what the adapter relies on. What is made for that is removed again; of
//! docket's own queues none is made, and those that are there are looked at.

use std::sync::Arc;

use actors::broker::{BrokerError, Subscription};
use actors::mailer::{Mail, MailError, Mailer, Sent};
use actors::subscriber::registry::{self, Parts};
use async_trait::async_trait;

use super::{Finding, bad, good};
use crate::config::Config;
use crate::rabbit::probe::Probe;

/// Looks at everything. What stands on something that is not there is left out.
pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let uri = &config.rabbitmq.uri;
    let probe = match Probe::open(&config.rabbitmq.settings()).await {
        Ok(probe) => probe,
        Err(error) => return vec![bad("rabbitmq.uri", format!("{uri}: {error}"))],
    };
    let mut findings = vec![good("rabbitmq.uri", format!("{uri} answers"))];
    let kept = probe.keeps().await;
    if let Some(reason) = probe.blocked() {
        findings.push(bad("quorum queue", format!("RabbitMQ takes nothing now: {reason}")));
        return findings;
    }
    findings.push(finding("quorum queue", kept.map(|()| "an event that it confirmed came back".to_owned())));
    let subscriptions = subscriptions(config);
    if subscriptions.iter().any(|subscription| subscription.partitions > 1) {
        let spreads = probe.spreads().await;
        findings.push(finding("partitions", spreads.map(|()| "orders can be spread among queues".to_owned())));
    }
    for subscription in &subscriptions {
        findings.push(finding("queue", fits(&probe, subscription).await));
    }
    findings
}

async fn fits(probe: &Probe, subscription: &Subscription) -> Result<String, BrokerError> {
    let there = probe.fits(subscription).await?;
    let name = subscription.subscriber;
    Ok(if there == 0 { format!("{name} has none yet") } else { format!("{name} has what docket declares") })
}

fn subscriptions(config: &Config) -> Vec<Subscription> {
    let subscribers = registry::all(&Parts { mailer: Arc::new(NoMailer) });
    let subscription = |subscriber: &'static str| Subscription {
        subscriber,
        partitions: config.subscriber(subscriber).partitions,
        prefetch: config.rabbitmq.prefetch,
    };
    subscribers.iter().map(|subscriber| subscription(subscriber.name())).collect()
}

/// For subscribers that are only asked for their names.
struct NoMailer;

#[async_trait]
impl Mailer for NoMailer {
    async fn send(&self, _: &Mail) -> Result<Sent, MailError> {
        Err(MailError::DependencyDown("docket check sends no mail".to_owned()))
    }
}

fn finding(what: &'static str, found: Result<String, BrokerError>) -> Finding {
    match found {
        Ok(detail) => good(what, detail),
        Err(error) => bad(what, error.to_string()),
    }
}
