//! `--only`: which parts of docket a process runs.

use actors::subscriber::registry::Registered;

use super::StartError;
use crate::config::Config;

/// Which parts of docket a process runs: all, or those that were named (`--only orders,notification`).
#[derive(Clone, Debug, Default)]
pub struct Only(Option<Vec<String>>);

impl Only {
    /// Those with these names; all without any.
    pub fn named(names: Vec<String>) -> Self {
        Self(Some(names).filter(|names| !names.is_empty()))
    }

    /// The subscribers to run, of all that there are.
    ///
    /// # Errors
    /// When a part or a section of the configuration is of a subscriber that does not exist.
    pub(super) fn select(&self, config: &Config, all: Vec<Registered>) -> Result<Vec<Registered>, StartError> {
        let known: Vec<&str> = all.iter().map(Registered::name).collect();
        let parts: Vec<&str> = std::iter::once(ORDERS).chain(known.iter().copied()).collect();
        if let Some(name) = self.0.iter().flatten().find(|name| !parts.contains(&name.as_str())) {
            return Err(StartError::UnknownPart { name: name.clone(), known: parts.join(", ") });
        }
        // A section for a subscriber that does not exist is a mistyped name: it would be without effect.
        if let Some(name) = config.subscribers.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(StartError::UnknownSubscriber { name: name.clone(), known: known.join(", ") });
        }
        Ok(all.into_iter().filter(|registered| self.runs(registered.name())).collect())
    }

    /// Whether orders are among them.
    pub fn orders(&self) -> bool {
        self.runs(ORDERS)
    }

    /// The first of the subscribers that run without orders, where these are left out.
    pub fn without_orders(&self) -> Option<&str> {
        let names = self.0.as_deref().filter(|_| !self.orders());
        names.and_then(|names| names.first()).map(String::as_str)
    }

    fn runs(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.iter().any(|named| named == name))
    }
}

/// The part that serves orders.
pub(super) const ORDERS: &str = "orders";
