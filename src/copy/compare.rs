//! Counts and checksums of what is compared.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How many there are, and the SHA-256 of all of them, one after another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// In hexadecimal digits. Each part of each is hashed behind its length, eight bytes, the greatest first.
    pub sha256: String,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with the SHA-256 {}", self.count, self.sha256)
    }
}

/// A sum that is being made.
#[derive(Default)]
pub(super) struct Summing {
    count: u64,
    hash: Sha256,
}

impl Summing {
    /// Adds one, made of these parts.
    pub(super) fn add(&mut self, parts: &[&[u8]]) {
        self.count += 1;
        for part in parts {
            self.hash.update((part.len() as u64).to_be_bytes());
            self.hash.update(part);
        }
    }

    pub(super) fn sum(self) -> Sum {
        let digits: String = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Sum { count: self.count, sha256: digits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(of: &[&[&[u8]]]) -> Sum {
        let mut summing = Summing::default();
        of.iter().for_each(|parts| summing.add(parts));
        summing.sum()
    }

    #[test]
    fn what_is_divided_otherwise_has_another_sum() {
        assert_eq!(sum(&[]).sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(sum(&[&[b"ab", b"c"]]), sum(&[&[b"ab", b"c"]]));
        assert_ne!(sum(&[&[b"ab", b"c"]]), sum(&[&[b"a", b"bc"]]));
        assert_ne!(sum(&[&[b"a"], &[b"b"]]), sum(&[&[b"b"], &[b"a"]]));
    }
}
