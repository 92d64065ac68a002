//! The bridge between the log and the mailboxes of subscribers, by way of a broker: the log to the broker, and the broker
//! to the mailboxes. It gives speed. That nothing is missing, comes out of order or counts twice is seen to by the log and
//! by the inboxes, never here.

pub mod consumer;
pub mod relay;
