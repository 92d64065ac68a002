//! The bridge between the log and the mailboxes of subscribers, by way of a broker.

pub mod consumer;
