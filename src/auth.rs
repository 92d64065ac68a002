//! Who may do what: keys that other machines show, each with a name and scopes.
//!
//! A key has 256 random bits, so its plain SHA-256 is all that docket has to know, and nobody guesses it. Neither a key nor
//! a hash is ever shown: not by `Debug`, not in errors, not in log lines. Nothing here reads requests or files.

mod entries;
mod secret;
mod token;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use subtle::{ConditionallySelectable, ConstantTimeEq};

pub use self::secret::Secret;
pub use self::token::{KeyHash, NotAHash, PREFIX};

/// What a key allows. None includes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Read orders and their events at the callers' address.
    OrdersRead,
    /// Place orders and tell them something, also by an import.
    OrdersWrite,
    /// See what operators see: the tree, restarts, subscribers, single orders, the history.
    OpsRead,
    /// Change what operators change.
    OpsWrite,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::OrdersRead, Self::OrdersWrite, Self::OpsRead, Self::OpsWrite];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OrdersRead => "orders:read",
            Self::OrdersWrite => "orders:write",
            Self::OpsRead => "ops:read",
            Self::OpsWrite => "ops:write",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is orders:read, orders:write, ops:read or ops:write")]
pub struct NotAScope;

impl FromStr for Scope {
    type Err = NotAScope;

    fn from_str(text: &str) -> Result<Self, NotAScope> {
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or(NotAScope)
    }
}

/// How a key is called: 1 to 64 of `A-Z a-z 0-9 . _ -`. It stands in events and log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName(Arc<str>);

/// The text cannot be a key's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to 64 of A-Z a-z 0-9 . _ - and is not anonymous, which is who asks without a key")]
pub struct NotAName;

const NAME_CHARS_MAX: usize = 64;

impl KeyName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let taken = text.eq_ignore_ascii_case(actors::commit::ANONYMOUS);
        let right = plain && !taken && (1..=NAME_CHARS_MAX).contains(&text.len());
        // A key that was written where its name belongs must not become one: it would be shown everywhere.
        let right = right && !text.starts_with(PREFIX);
        right.then(|| Self(text.into())).ok_or(NotAName)
    }
}

/// A key as docket knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// How it is called.
    pub name: KeyName,
    /// What it allows; at least one.
    pub scopes: BTreeSet<Scope>,
    hash: KeyHash,
}

impl Key {
    /// The scopes as they are written, in one order.
    pub fn scopes_written(&self) -> String {
        self.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(", ")
    }
}

/// All keys of a docket. No two have the same name or the same hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// The key whose text that is. Takes as long whichever it is, and whether it is one: every hash is compared, each in
    /// constant time.
    pub fn find(&self, shown: &str) -> Option<&Key> {
        if !token::is_key(shown) {
            return None;
        }
        let hash = KeyHash::of(shown);
        let mut place = u32::MAX;
        for (index, key) in (0_u32..).zip(&self.0) {
            place.conditional_assign(&index, key.hash.ct_eq(&hash));
        }
        usize::try_from(place).ok().and_then(|place| self.0.get(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_never_a_key() {
        for right in ["shop", "a", "Shop-2.eu_west", &"n".repeat(64)] {
            assert_eq!(right.parse::<KeyName>().expect("a name").as_str(), right);
        }
        let key = format!("{PREFIX}abc");
        for wrong in ["", "a b", "ä", "a:b", "a,b", "anonymous", "Anonymous", &"n".repeat(65), &key] {
            assert_eq!(wrong.parse::<KeyName>(), Err(NotAName), "{wrong}");
        }
    }

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
        }
        for wrong in ["", "orders", "orders:", "Orders:read", "orders:read ", "*"] {
            assert_eq!(wrong.parse::<Scope>(), Err(NotAScope), "{wrong}");
        }
    }
}
