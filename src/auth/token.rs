//! A key's text, and the hash that is kept of it.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::Secret;

/// What every key begins with, so that one that lies where it should not is recognised, by people and by scanners.
pub const PREFIX: &str = "docket_";

const BYTES: usize = 32;
const HASH_PREFIX: &str = "sha256:";

/// Whether a text looks like a key. Says nothing about which.
pub(super) fn is_key(text: &str) -> bool {
    let digits = text.strip_prefix(PREFIX);
    digits
        .is_some_and(|it| it.len() == 2 * BYTES && it.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

impl Secret {
    /// A new key: [`PREFIX`] and 256 bits of the operating system's randomness in hexadecimal digits.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn new_key() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self::from(format!("{PREFIX}{}", hex::encode(bytes))))
    }

    /// Whether it looks like a key. Says nothing about which.
    pub fn is_key(&self) -> bool {
        is_key(self.expose())
    }
}

/// SHA-256 of a key. Written `sha256:` and 64 hexadecimal digits, and not shown otherwise.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHash([u8; BYTES]);

impl KeyHash {
    /// Of that key.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// As a configuration has it.
    pub fn written(&self) -> String {
        format!("{HASH_PREFIX}{}", hex::encode(self.0))
    }
}

impl ConstantTimeEq for KeyHash {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:***")
    }
}

/// The text is no hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is sha256: and 64 hexadecimal digits, as docket key new prints it")]
pub struct NotAHash;

impl FromStr for KeyHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let mut hash = [0; BYTES];
        let digits = text.strip_prefix(HASH_PREFIX).ok_or(NotAHash)?;
        hex::decode_to_slice(digits, &mut hash).map_err(|_| NotAHash)?;
        Ok(Self(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_recognised_and_like_no_other() {
        let (one, two) = (Secret::new_key().expect("a key"), Secret::new_key().expect("a key"));
        assert!(is_key(one.expose()) && is_key(two.expose()));
        assert_ne!(one, two);
        let digits = one.expose().trim_start_matches(PREFIX).to_owned();
        for wrong in ["", PREFIX, "password", &digits, &one.expose()[1..], &format!("{}0", one.expose())] {
            assert!(!is_key(wrong), "{wrong}");
        }
        assert!(!is_key(&format!("{PREFIX}{}", "A".repeat(64))));
    }

    #[test]
    fn a_hash_is_sha256_of_the_whole_text_and_is_not_shown() {
        // printf docket_abc | sha256sum
        let written = "sha256:7a62f9adf046d75ff8bcc7627908b3596676e968ff450b9892a460dbc5a20c93";
        let hash = KeyHash::of("docket_abc");
        assert_eq!(hash.written(), written);
        assert_eq!(written.parse(), Ok(hash.clone()));
        assert_eq!(written.to_uppercase().replace("SHA256", "sha256").parse(), Ok(hash.clone()));
        assert_eq!(format!("{hash:?}"), "sha256:***");
        for wrong in ["", "sha256:", "sha256:12", &written[7..], &format!("{written}0"), &written.replace('a', "g")] {
            assert_eq!(wrong.parse::<KeyHash>(), Err(NotAHash), "{wrong}");
        }
    }
}
