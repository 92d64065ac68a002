//! The sections of the configuration, key by key, as `config.toml` documents them.
//!
//! They hold values and check nothing: whether a value can be right is asked beside them.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::millis;
use crate::auth::{Keys, Secret};
use crate::mail::SmtpUrl;
use crate::mongo::Uri;
use crate::mongo::server::Settings;
use crate::rabbit;

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($key:ident: $kind:ty),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(missing_docs, reason = "config.toml documents every key; a second text beside it would drift")]
        pub struct $name { $(pub $key: $kind),+ }
    )+};
}

sections! {
    /// `[http]`
    Http {
        bind: SocketAddr,
        hosts: Vec<String>,
        workers: u32,
        connections_max: u32,
        streams_max: u32,
        head_timeout_ms: u64,
        body_timeout_ms: u64,
        keep_alive_ms: u64,
        answer_timeout_ms: u64,
    }
    /// `[ops]`
    Ops { bind: SocketAddr, hosts: Vec<String> }
    /// `[auth]`
    Auth { open: bool, keys: Keys }
    /// `[data]`
    Data { directory: PathBuf }
    /// `[node]`
    Node { name: String, heartbeat_ms: u64 }
    /// `[mongodb]`
    Mongodb { uri: Uri, database: String, pool_max: u32, selection_timeout_ms: u64, answer_timeout_ms: u64 }
    /// `[rabbitmq]`
    Rabbitmq {
        uri: rabbit::Uri,
        publish_max: u32,
        prefetch: u16,
        queue_messages_max: u64,
        answer_timeout_ms: u64,
        heartbeat_s: u16,
        retry_max_ms: u64,
        lease_ms: u64,
    }
    /// `[history]`
    History { url: String, key: Secret }
    /// `[orders]`
    Orders {
        passivate_after_ms: u64,
        live_max: u32,
        shards: u32,
        waiting_max: u32,
        waiting_per_order_max: u32,
        loading_max: u32,
        conflicts_max: u32,
        snapshot_every_events: u32,
    }
    /// `[journal]`
    Journal {
        group_commits_max: u32,
        group_bytes_max: u64,
        waiting_commits_max: u32,
        wait_max_ms: u64,
        write_max_ms: u64,
        retry_first_ms: u64,
        retry_max_ms: u64,
    }
    /// `[subscriber]`, and `[subscribers.NAME]` with the rest taken from it.
    Subscriber {
        attempts_max: u32,
        failing_orders_max: u32,
        backoff_first_ms: u64,
        backoff_factor: f64,
        backoff_max_ms: u64,
        batch_events_max: u32,
        batch_documents_max: u32,
        batch_bytes_max: u64,
        queue_events_max: u32,
        rows_cached_max: u32,
        lanes_at_once_max: u32,
        history_commits_max: u32,
        effects_loaded_max: u32,
        effects_at_once_max: u32,
        effects_max: u32,
        handler_patience_ms: u64,
        handler_timeout_ms: u64,
        effect_timeout_ms: u64,
        partitions: u16,
        lease_ms: u64,
    }
    /// `[notification]`
    Notification {
        smtp_url: SmtpUrl,
        from: String,
        smtp_connections_max: u32,
        smtp_timeout_ms: u64,
        smtp_accept_timeout_ms: u64,
    }
    /// `[supervisor]`
    Supervisor {
        restarts_max: u32,
        window_ms: u64,
        backoff_first_ms: u64,
        backoff_factor: f64,
        backoff_max_ms: u64,
        backoff_reset_ms: u64,
        quarantine_first_ms: u64,
        quarantine_max_ms: u64,
        stuck_after_ms: u64,
    }
    /// `[shutdown]`
    Shutdown { deadline_ms: u64 }
    /// `[log]`
    Log { format: LogFormat, level: String }
    /// `[telemetry]`
    Telemetry { otlp_endpoint: String }
}

impl Mongodb {
    /// How the deployment is spoken to.
    pub fn settings(&self) -> Settings {
        Settings {
            pool_max: self.pool_max,
            select_within: millis(self.selection_timeout_ms),
            answer_within: millis(self.answer_timeout_ms),
            ..Settings::new(self.uri.expose())
        }
    }
}

impl Rabbitmq {
    /// How the broker is spoken to.
    pub fn settings(&self) -> rabbit::Settings {
        rabbit::Settings {
            uri: self.uri.clone(),
            publish_max: usize::try_from(self.publish_max).unwrap_or(usize::MAX),
            queue_messages_max: self.queue_messages_max,
            answer_within: millis(self.answer_timeout_ms),
            heartbeat_s: self.heartbeat_s,
        }
    }
}

impl Subscriber {
    /// Its limits, each 1 or more.
    pub(super) fn positive(&self) -> [(&'static str, u64); 19] {
        [
            ("attempts_max", self.attempts_max.into()),
            ("failing_orders_max", self.failing_orders_max.into()),
            ("backoff_first_ms", self.backoff_first_ms),
            ("backoff_max_ms", self.backoff_max_ms),
            ("batch_events_max", self.batch_events_max.into()),
            ("batch_documents_max", self.batch_documents_max.into()),
            ("batch_bytes_max", self.batch_bytes_max),
            ("queue_events_max", self.queue_events_max.into()),
            ("rows_cached_max", self.rows_cached_max.into()),
            ("lanes_at_once_max", self.lanes_at_once_max.into()),
            ("history_commits_max", self.history_commits_max.into()),
            ("effects_loaded_max", self.effects_loaded_max.into()),
            ("effects_at_once_max", self.effects_at_once_max.into()),
            ("handler_patience_ms", self.handler_patience_ms),
            ("handler_timeout_ms", self.handler_timeout_ms),
            ("effect_timeout_ms", self.effect_timeout_ms),
            ("lease_ms", self.lease_ms),
            ("partitions", self.partitions.into()),
            ("effects_max", self.effects_max.into()),
        ]
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
