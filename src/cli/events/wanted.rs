//! Which events are wanted: by order, by type, by customer.

use std::str::FromStr;

use actors::event::Envelope;
use actors::order::OrderId;

/// A type of events, or with a star at its end all types that begin so.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pattern {
    Type(String),
    Prefix(String),
}

impl FromStr for Pattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |text: &str| !text.contains('*') && !text.contains(char::is_whitespace);
        match text.strip_suffix('*') {
            Some(prefix) if named(prefix) => Ok(Self::Prefix(prefix.to_owned())),
            None if named(text) && !text.is_empty() => Ok(Self::Type(text.to_owned())),
            Some(_) | None => Err("must be a type such as order.paid, or the beginning of some, as in order.item_*"),
        }
    }
}

impl Pattern {
    pub(super) fn takes(&self, event_type: &str) -> bool {
        match self {
            Self::Type(this) => this == event_type,
            Self::Prefix(prefix) => event_type.starts_with(prefix.as_str()),
        }
    }
}

/// What was asked for, apart from the customer: that is looked up last.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) order: Option<OrderId>,
    /// Any of them; none: all types.
    pub(super) types: Vec<Pattern>,
}

impl Wanted {
    pub(super) fn takes(&self, event: &Envelope) -> bool {
        let of_order = self.order.is_none_or(|order| order == event.order);
        of_order && (self.types.is_empty() || self.types.iter().any(|pattern| pattern.takes(&event.event_type)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_type_or_the_beginning_of_some() {
        let takes = |pattern: &str, event_type: &str| pattern.parse::<Pattern>().expect(pattern).takes(event_type);
        assert!(takes("order.paid", "order.paid") && !takes("order.paid", "order.paid_back"));
        assert!(takes("order.item_*", "order.item_added") && !takes("order.item_*", "order.items"));
        assert!(takes("*", "order.gift_wrapped"));
        for wrong in ["", "order.*.paid", "**", "order. paid"] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
        }
    }
}
