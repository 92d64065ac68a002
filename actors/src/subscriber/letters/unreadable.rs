//! What nobody can read, as the broker keeps it: shown among the dead letters, and nothing that an operator could retry.

use std::collections::HashMap;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::Group;
use crate::broker::BrokerError;
use crate::clock::Timestamp;

/// Bytes of a message that are shown.
const EXCERPT_BYTES_MAX: usize = 1_000;

/// Where what nobody can read is kept. Adapter: `src/rabbit/`.
#[async_trait]
pub trait SetAside: Send + Sync {
    /// At most `limit` of a subscriber's messages that nobody can read, oldest first. They stay there, and nobody else is
    /// kept from them for longer than this takes.
    async fn unreadable(&self, subscriber: &str, limit: usize) -> Result<Vec<Unreadable>, BrokerError>;
}

/// A message that is no event, or an event that no docket here can read.
///
/// One that can be read after all goes back to its lane by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// What it is called: the same for the same content.
    pub id: String,
    /// The id that whoever published it gave it.
    pub message_id: Option<String>,
    /// Why it was set aside, in words.
    pub reason: String,
    /// When, where that is known.
    pub at: Option<Timestamp>,
    /// How long it is.
    pub bytes: usize,
    /// How it begins, as far as that is text.
    pub excerpt: String,
}

impl Unreadable {
    /// The message with that content.
    pub fn new(body: &[u8], message_id: Option<String>, reason: String, at: Option<Timestamp>) -> Self {
        let digest = Sha256::digest(body);
        let id: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let shown = &body[..body.len().min(EXCERPT_BYTES_MAX)];
        Self {
            id: format!("message-{id}"),
            message_id,
            reason,
            at,
            bytes: body.len(),
            excerpt: String::from_utf8_lossy(shown).into_owned(),
        }
    }

    /// All of them are one group: what is wrong with them is not in this docket's code.
    pub fn group() -> Group {
        Group::hashed("unreadable", "")
    }
}

/// Tells those of the same content apart: the second one is `ID.2`, and so on.
pub(super) fn numbered(mut messages: Vec<Unreadable>) -> Vec<Unreadable> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for message in &mut messages {
        let times = seen.entry(message.id.clone()).or_default();
        *times += 1;
        if *times > 1 {
            message.id = format!("{}.{times}", message.id);
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_is_called_the_same_and_told_apart_by_number() {
        let message = |body: &[u8]| Unreadable::new(body, None, "no JSON".to_owned(), None);
        let ids: Vec<_> =
            numbered(vec![message(b"a"), message(b"b"), message(b"a")]).into_iter().map(|it| it.id).collect();
        assert_eq!(ids[0], message(b"a").id);
        assert_ne!(ids[0], ids[1]);
        assert_eq!(ids[2], format!("{}.2", ids[0]));
    }

    #[test]
    fn what_is_no_text_and_long_is_shown_all_the_same() {
        let body: Vec<u8> = (0..100_000).map(|at| if at % 3 == 0 { 0xff } else { b'x' }).collect();
        let message = Unreadable::new(&body, None, String::new(), None);
        assert_eq!(message.bytes, 100_000);
        assert!(message.excerpt.chars().count() <= EXCERPT_BYTES_MAX);
    }
}
