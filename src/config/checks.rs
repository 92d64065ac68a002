//! Values that are of the right kind and still cannot be right, or that this version cannot act on yet.
//!
//! Each is named with its key and with what would be right. Nothing is looked up or opened for it.

use actors::subscriber::Subscriber as _;
use actors::subscriber::notification::Notification as Mailing;

use super::{Config, Mongodb, Notification};
use crate::history::check_address;
use crate::mongo::{GROUP_BYTES_MAX, GROUP_COMMITS_MAX};

/// Least connections that docket can live on.
const POOL_LEAST: u32 = 8;

const RELAY_LEASE: &str = "rabbitmq.lease_ms";

/// A process that publishes renews its lease several times before it ends.
const RELAY_LEASE_LEAST_MS: u64 = 1_000;

impl Config {
    /// Keys with a value that no docket can run on.
    pub(super) fn out_of_range(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        for (key, value) in self.positive() {
            if value == 0 {
                wrong.push((key.to_owned(), "must be 1 or more".to_owned()));
            }
        }
        let factors = [
            ("subscriber.backoff_factor".to_owned(), self.subscriber.backoff_factor),
            ("supervisor.backoff_factor".to_owned(), self.supervisor.backoff_factor),
        ];
        let overridden = self.subscribers.iter().map(|(name, s)| {
            let key = format!("subscribers.{name}.backoff_factor");
            (key, s.backoff_factor)
        });
        for (key, factor) in factors.into_iter().chain(overridden) {
            if !(1.0..=100.0).contains(&factor) {
                wrong.push((key, "must be from 1 to 100".to_owned()));
            }
        }
        let overridden = self.subscribers.iter().map(|(name, limits)| (format!("subscribers.{name}"), limits));
        for (section, subscriber) in overridden.chain([("subscriber".to_owned(), &self.subscriber)]) {
            let zero = subscriber.positive().into_iter().filter(|(_, value)| *value == 0);
            wrong.extend(zero.map(|(key, _)| (format!("{section}.{key}"), "must be 1 or more".to_owned())));
        }
        if let Err(error) = crate::telemetry::filter(&self.log.level) {
            wrong.push(("log.level".to_owned(), format!("must be error, warn, info, debug or trace: {error}")));
        }
        for (key, bind) in [("http.bind", self.http.bind), ("ops.bind", self.ops.bind)] {
            if !bind.ip().is_loopback() && !self.auth.open && self.auth.keys.is_empty() {
                let reason = format!(
                    "{bind} can be reached from other machines, and nobody has a key: give auth.keys (docket key new), bind \
                     127.0.0.1, or set auth.open = true to let everybody in who reaches it"
                );
                wrong.push((key.to_owned(), reason));
            }
        }
        if self.auth.open && !self.auth.keys.is_empty() {
            let reason = "it lets everybody in, and auth.keys only those with a key: leave one of them out".to_owned();
            wrong.push(("auth.open".to_owned(), reason));
        }
        wrong.extend(self.leases_wrong());
        let sizes = [
            ("journal.group_commits_max", self.journal.group_commits_max.into(), GROUP_COMMITS_MAX.into()),
            ("journal.group_bytes_max", self.journal.group_bytes_max, GROUP_BYTES_MAX),
        ];
        for (key, value, most) in sizes {
            if value > most {
                wrong.push((key.to_owned(), format!("must be at most {most}: MongoDB takes one write in one message")));
            }
        }
        wrong.extend(self.mails_wrong().map(|(key, reason)| (format!("notification.{key}"), reason)));
        wrong.extend(self.mongodb_wrong().map(|(key, reason)| (format!("mongodb.{key}"), reason)));
        let broker = &self.rabbitmq.uri;
        let address = (!broker.is_empty()).then(|| broker.check().err()).flatten();
        wrong.extend(address.map(|reason| ("rabbitmq.uri".to_owned(), reason)));
        if !self.history.url.is_empty()
            && let Err(why) = check_address(&self.history.url)
        {
            wrong.push(("history.url".to_owned(), why));
        }
        if self.http.bind == self.ops.bind && self.http.bind.port() != 0 {
            wrong.push(("ops.bind".to_owned(), format!("{} is http.bind already", self.ops.bind)));
        }
        wrong
    }

    /// Leases that end while their holder may be in a transaction: its statements, and its commit.
    fn leases_wrong(&self) -> Vec<(String, String)> {
        let answer = self.mongodb.answer_timeout_ms;
        let transaction = answer.saturating_mul(2);
        let overridden = self.subscribers.iter().map(|(name, limits)| (format!("subscribers.{name}"), limits));
        let sections = overridden.chain([("subscriber".to_owned(), &self.subscriber)]);
        let leases = sections.map(|(section, limits)| (format!("{section}.lease_ms"), limits.lease_ms));
        let leases = leases.chain([(RELAY_LEASE.to_owned(), self.rabbitmq.lease_ms)]);
        let short = leases.filter(|(_, lease)| !self.mongodb.uri.is_empty() && *lease < transaction);
        let reason = format!(
            "must be {transaction} or more, twice mongodb.answer_timeout_ms ({answer}): else a lease ends while its holder \
             is in a transaction"
        );
        let mut wrong: Vec<_> = short.map(|(key, _)| (key, reason.clone())).collect();
        if (1..RELAY_LEASE_LEAST_MS).contains(&self.rabbitmq.lease_ms)
            && wrong.iter().all(|(key, _)| key != RELAY_LEASE)
        {
            let reason =
                format!("must be {RELAY_LEASE_LEAST_MS} or more: else processes take it from each other for ever");
            wrong.push((RELAY_LEASE.to_owned(), reason));
        }
        wrong
    }

    fn mails_wrong(&self) -> impl Iterator<Item = (&'static str, String)> {
        let Notification { smtp_url, smtp_timeout_ms, smtp_accept_timeout_ms, .. } = &self.notification;
        let by_smtp = !smtp_url.is_empty();
        let address = by_smtp.then(|| smtp_url.check().err()).flatten();
        let most = self.subscriber(Mailing::NAME).effect_timeout_ms / 2;
        let timeout = (by_smtp && smtp_timeout_ms.saturating_add(*smtp_accept_timeout_ms) > most).then(|| {
            format!(
                "must be, together with smtp_timeout_ms ({smtp_timeout_ms}), at most {most}, half of the subscriber's \
                 effect_timeout_ms: else a mail that waited for a connection is given up while the server takes it, and \
                 sent again"
            )
        });
        [("smtp_url", address), ("smtp_accept_timeout_ms", timeout)]
            .into_iter()
            .filter_map(|(key, wrong)| Some((key, wrong?)))
    }

    fn mongodb_wrong(&self) -> impl Iterator<Item = (&'static str, String)> {
        let Mongodb { uri, database, pool_max, selection_timeout_ms, .. } = &self.mongodb;
        let address = (!uri.is_empty()).then(|| uri.check(database).err()).flatten();
        let name = (!is_database(database)).then(|| {
            "must be a name such as docket: 1 to 38 of A-Z a-z 0-9 _ -, and not admin, local or config".to_owned()
        });
        let write = self.journal.write_max_ms;
        let selection = (*selection_timeout_ms >= write).then(|| {
            format!("must be shorter than journal.write_max_ms ({write}): else a write that never left has an unknown outcome")
        });
        let pool = (1..POOL_LEAST).contains(pool_max).then(|| {
            format!("must be {POOL_LEAST} or more: reads take half, the journal, leases and subscribers the rest")
        });
        [("uri", address), ("database", name), ("pool_max", pool), ("selection_timeout_ms", selection)]
            .into_iter()
            .filter_map(|(key, wrong)| Some((key, wrong?)))
    }

    fn positive(&self) -> [(&'static str, u64); 39] {
        [
            ("http.connections_max", self.http.connections_max.into()),
            ("http.head_timeout_ms", self.http.head_timeout_ms),
            ("http.body_timeout_ms", self.http.body_timeout_ms),
            ("http.answer_timeout_ms", self.http.answer_timeout_ms),
            ("node.heartbeat_ms", self.node.heartbeat_ms),
            ("mongodb.pool_max", self.mongodb.pool_max.into()),
            ("mongodb.selection_timeout_ms", self.mongodb.selection_timeout_ms),
            ("mongodb.answer_timeout_ms", self.mongodb.answer_timeout_ms),
            ("rabbitmq.publish_max", self.rabbitmq.publish_max.into()),
            ("rabbitmq.prefetch", self.rabbitmq.prefetch.into()),
            ("rabbitmq.queue_messages_max", self.rabbitmq.queue_messages_max),
            ("rabbitmq.answer_timeout_ms", self.rabbitmq.answer_timeout_ms),
            ("rabbitmq.heartbeat_s", self.rabbitmq.heartbeat_s.into()),
            ("rabbitmq.retry_max_ms", self.rabbitmq.retry_max_ms),
            ("rabbitmq.lease_ms", self.rabbitmq.lease_ms),
            ("notification.smtp_connections_max", self.notification.smtp_connections_max.into()),
            ("notification.smtp_timeout_ms", self.notification.smtp_timeout_ms),
            ("notification.smtp_accept_timeout_ms", self.notification.smtp_accept_timeout_ms),
            ("orders.passivate_after_ms", self.orders.passivate_after_ms),
            ("orders.live_max", self.orders.live_max.into()),
            ("orders.waiting_max", self.orders.waiting_max.into()),
            ("orders.waiting_per_order_max", self.orders.waiting_per_order_max.into()),
            ("orders.loading_max", self.orders.loading_max.into()),
            ("orders.conflicts_max", self.orders.conflicts_max.into()),
            ("orders.snapshot_every_events", self.orders.snapshot_every_events.into()),
            ("journal.group_commits_max", self.journal.group_commits_max.into()),
            ("journal.group_bytes_max", self.journal.group_bytes_max),
            ("journal.waiting_commits_max", self.journal.waiting_commits_max.into()),
            ("journal.wait_max_ms", self.journal.wait_max_ms),
            ("journal.write_max_ms", self.journal.write_max_ms),
            ("journal.retry_first_ms", self.journal.retry_first_ms),
            ("journal.retry_max_ms", self.journal.retry_max_ms),
            ("supervisor.restarts_max", self.supervisor.restarts_max.into()),
            ("supervisor.window_ms", self.supervisor.window_ms),
            ("supervisor.backoff_first_ms", self.supervisor.backoff_first_ms),
            ("supervisor.backoff_max_ms", self.supervisor.backoff_max_ms),
            ("supervisor.quarantine_first_ms", self.supervisor.quarantine_first_ms),
            ("supervisor.quarantine_max_ms", self.supervisor.quarantine_max_ms),
            ("supervisor.stuck_after_ms", self.supervisor.stuck_after_ms),
        ]
    }

    /// Keys that a later version acts on. Taken silently, somebody would believe that they hold.
    pub(super) fn not_yet(&self) -> Vec<(String, String)> {
        let keys = [("telemetry.otlp_endpoint", !self.telemetry.otlp_endpoint.is_empty(), "cannot send traces")];
        let set = keys.into_iter().filter(|(_, set, _)| *set);
        set.map(|(key, _, what)| (key.to_owned(), format!("this version {what} yet: leave it empty"))).collect()
    }
}

/// Whether a database can have that name, with room for `_` and a subscriber's name behind it.
pub(crate) fn is_database(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    plain && (1..=38).contains(&name.len()) && !["admin", "local", "config"].contains(&name)
}
