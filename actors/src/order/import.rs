//! Orders of the older shape (`order.created` schema version 1), one JSON object a line. What is accepted here is stored
//! as it came and upcast whenever it is read, so whatever reading could refuse later is refused here.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::OrderId;
use super::command::{Command, Fields, ID_CHARS_MAX, LINES_MAX, QUANTITY_MAX};
use super::error::FieldError;
use super::event::{Created, EventKind, Line, SCHEMA_OF_IMPORTS, total_of};
use crate::event::upcaster;

/// Longest line, in bytes: a commit that holds it is still within what a store takes.
pub const LINE_BYTES_MAX: usize = 512 * 1024;
/// Most reasons that are given for one bad line.
const REASONS_MAX: usize = 10;

/// An order of the older shape, kept as the text that was imported.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Import {
    /// The JSON object, exactly.
    pub data: Box<RawValue>,
}

impl PartialEq for Import {
    fn eq(&self, other: &Self) -> bool {
        self.data.get() == other.data.get()
    }
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(rename = "orderId", borrow)]
    order_id: &'a RawValue,
}

impl Import {
    /// Which order a line is about, and the command that takes it over.
    ///
    /// # Errors
    /// Everything that is wrong with the line, in a sentence for a person.
    pub fn parse(line: &str) -> Result<(OrderId, Command), String> {
        let line = line.trim();
        if line.is_empty() {
            return Err("the line is empty".to_owned());
        }
        let data = serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
        let import = Self { data };
        let (order, _) = import.read().map_err(|errors| sentence(&errors))?;
        Ok((order, Command::Import(import)))
    }

    /// The event it stands for, in the newest schema.
    ///
    /// # Errors
    /// Every field that cannot be right, under the names of the older shape.
    pub fn upcast(&self) -> Result<Created, Vec<FieldError>> {
        self.read().map(|(_, created)| created)
    }

    fn read(&self) -> Result<(OrderId, Created), Vec<FieldError>> {
        let mut fields = Fields::default();
        let read = self.order_id().and_then(|id| Ok((id, self.created()?)));
        match read {
            Err(reason) => fields.wrong("order", reason),
            Ok((order_id, created)) => {
                fields.text("orderId", &order_id, ID_CHARS_MAX);
                check(&created, &mut fields);
                if fields.errors.is_empty() {
                    return Ok((OrderId::of_import(&order_id), created));
                }
            }
        }
        Err(fields.errors)
    }

    fn order_id(&self) -> Result<String, String> {
        let text = self.data.get();
        if text.len() > LINE_BYTES_MAX {
            return Err(format!("must be at most {LINE_BYTES_MAX} bytes"));
        }
        // Without this an array of the values in our order would pass for an object.
        if !text.starts_with('{') {
            return Err("must be a JSON object".to_owned());
        }
        let named: Named<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        upcaster::id(named.order_id).ok_or_else(|| "orderId must be a string or a whole number".to_owned())
    }

    fn created(&self) -> Result<Created, String> {
        let data = upcaster::upcast(EventKind::Created, SCHEMA_OF_IMPORTS, &self.data)?;
        serde_json::from_str(data.get()).map_err(|error| error.to_string())
    }
}

fn check(created: &Created, fields: &mut Fields) {
    fields.text("userId", &created.personal.customer_id, ID_CHARS_MAX);
    if created.items.len() > LINES_MAX {
        fields.wrong("items", format!("must have at most {LINES_MAX} lines"));
        return;
    }
    for Line { sku, quantity, .. } in &created.items {
        let name = upcaster::short(sku);
        fields.sku(format_args!("the sku {name:?}"), sku);
        fields.whole(format_args!("the quantity of {name:?}"), i64::from(*quantity), 1..=QUANTITY_MAX);
    }
    let currency = created.currency;
    match total_of(&created.items) {
        None => fields.wrong("items", "are too much together"),
        Some(sum) if sum != created.total => {
            let (sum, total) = (sum.display(currency), created.total.display(currency));
            fields.wrong("total", format!("is {total}, but the lines are {sum} together"));
        }
        Some(_) => {}
    }
}

fn sentence(errors: &[FieldError]) -> String {
    let said = errors.iter().take(REASONS_MAX).map(|error| format!("{} {}", error.field, error.reason));
    let mut said: Vec<_> = said.collect();
    if errors.len() > REASONS_MAX {
        said.push(format!("and {} more", errors.len() - REASONS_MAX));
    }
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::event::EventId;
    use crate::order::aggregate::{decide, evolve};
    use crate::order::event::OrderEvent;

    const LINE: &str =
        r#"{"orderId":"o-1","userId":7,"total":12.50,"items":[{"sku":"A","quantity":2,"price":"6.25"}]}"#;

    /// An accepted line must be readable for ever, from what is stored of it.
    fn assert_stays_readable(order: OrderId, command: &Command) {
        let events = decide(None, command).expect("an accepted import is decided");
        let [event] = events.as_slice() else { panic!("{events:?}") };
        let stored = command.stored_form(EventId::generate(), event).expect("encodes");
        let read = OrderEvent::decode(&stored.event_type, stored.schema_version, &stored.data);
        assert_eq!(read.as_ref(), Ok(event));
        evolve(None, order, event, Timestamp::from_millis(0)).expect("an order comes of it");
    }

    #[test]
    fn an_import_is_stored_as_it_came() {
        let (order, command) = Import::parse(&format!("  {LINE}\r\n")).expect("a good line");
        assert_eq!(order, OrderId::of_import("o-1"));
        let events = decide(None, &command).expect("decided");
        let stored = command.stored_form(EventId::generate(), &events[0]).expect("encodes");
        assert_eq!((stored.event_type.as_str(), stored.schema_version), ("order.created", 1));
        assert_eq!(stored.data.get(), LINE);
        assert_stays_readable(order, &command);
    }

    #[test]
    fn a_number_and_a_text_name_the_same_order() {
        let named = |id: &str| Import::parse(&LINE.replace(r#""o-1""#, id)).expect("a good line").0;
        assert_eq!(named("42"), named(r#""42""#));
        let uuid = "01939c2e-0000-7000-8000-000000000001";
        assert_eq!(named(&format!("{uuid:?}")).to_string(), uuid);
    }

    #[test]
    fn a_bad_line_says_everything_that_is_wrong_with_it() {
        let long = "x".repeat(ID_CHARS_MAX + 1);
        let replaced = |from: &str, to: &str| {
            assert!(LINE.contains(from), "{from}");
            LINE.replace(from, to)
        };
        for (line, reason) in [
            (String::new(), "the line is empty"),
            ("total=1".to_owned(), "not JSON: expected ident at line 1 column 2"),
            (format!("{LINE} {LINE}"), "not JSON: trailing characters"),
            (r#"["o-1",7,12.50]"#.to_owned(), "order must be a JSON object"),
            (replaced("orderId", "orderid"), "order missing field `orderId`"),
            (replaced(r#""o-1""#, "{}"), "order orderId must be a string or a whole number"),
            (replaced(r#""o-1""#, r#""""#), "orderId must have 1 to 128 characters"),
            (replaced("7", &format!("{long:?}")), "userId must have 1 to 128 characters"),
            (replaced("7", r#""a\nb""#), "userId must not have control characters"),
            (replaced("12.50", "12.51"), "total is 12.51 EUR, but the lines are 12.50 EUR together"),
            (replaced("12.50", "12.505"), "order total must not have more than two decimals"),
            (
                replaced(r#""A","quantity":2"#, r#""A B","quantity":0"#),
                "the sku \"A B\" must be 1 to 64 characters of A-Z a-z 0-9 . _ ~ -; \
                 the quantity of \"A B\" must be a whole number from 1 to 1000000; \
                 total is 12.50 EUR, but the lines are 0.00 EUR together",
            ),
            (replaced(r#""6.25""#, "90071992547409.91"), "items are too much together"),
            (replaced("{", &format!(r#"{{"x":"{}","#, "x".repeat(LINE_BYTES_MAX))), "order must be at most"),
        ] {
            let error = Import::parse(&line).expect_err(&line);
            assert!(error.starts_with(reason), "{error}");
        }
        let lines: Vec<_> = (0..=LINES_MAX).map(|n| format!(r#"{{"sku":"{n}","quantity":1,"price":0}}"#)).collect();
        let many = format!(r#"{{"orderId":1,"userId":1,"total":0,"items":[{}]}}"#, lines.join(","));
        assert_eq!(Import::parse(&many).expect_err("too many"), "items must have at most 1000 lines");
    }

    #[test]
    fn the_reasons_stay_readable_however_bad_the_line_is() {
        let sku = "ü".repeat(10_000);
        let lines: Vec<_> =
            (0..500).map(|n| format!(r#"{{"sku":"{n} {}","quantity":1,"price":0}}"#, &sku[..20])).collect();
        let many = format!(r#"{{"orderId":1,"userId":1,"total":0,"items":[{}]}}"#, lines.join(","));
        let reason = Import::parse(&many).expect_err("bad skus");
        assert!(reason.ends_with("; and 490 more"), "{reason}");
        for price in ["0", "true"] {
            let item = format!(r#"{{"sku":"{sku}","quantity":1,"price":{price}}}"#);
            let long = format!(r#"{{"orderId":1,"userId":1,"total":0,"items":[{item}]}}"#);
            let reason = Import::parse(&long).expect_err("a bad sku");
            assert!(reason.contains("\"üü") && reason.len() < 300, "{reason}");
        }
    }

    fn cents(minor_units: i64) -> String {
        format!("{}.{:02}", minor_units / 100, minor_units % 100)
    }

    proptest! {
        #[test]
        fn a_line_is_accepted_exactly_when_it_adds_up(
            items in vec((0..4_usize, 1..1_000_i64, any::<bool>()), 0..6),
            prices in proptest::array::uniform4(0..100_000_000_i64),
            off_by in prop_oneof![4 => Just(0), 1 => 1..5_i64],
        ) {
            let sum: i64 = items.iter().map(|(sku, quantity, _)| quantity * prices[*sku]).sum();
            let total = sum + off_by;
            let lines: Vec<_> = items
                .iter()
                .map(|(sku, quantity, quoted)| {
                    let price = cents(prices[*sku]);
                    let price = if *quoted { format!("{price:?}") } else { price };
                    format!(r#"{{"sku":"S{sku}","quantity":{quantity},"price":{price}}}"#)
                })
                .collect();
            let line =
                format!(r#"{{"orderId":1,"userId":"u","total":{},"items":[{}]}}"#, cents(total), lines.join(","));
            match Import::parse(&line) {
                Ok((order, command)) => {
                    prop_assert!(off_by == 0 || items.is_empty());
                    assert_stays_readable(order, &command);
                    let Command::Import(import) = &command else { panic!("{command:?}") };
                    prop_assert_eq!(import.upcast().expect("accepted").total.minor_units(), total);
                }
                Err(reason) => prop_assert!(off_by != 0 && !items.is_empty(), "{reason}: {line}"),
            }
        }

        #[test]
        fn no_line_is_accepted_that_cannot_be_read_later(
            order_id in prop_oneof!["[0-9]{1,3}", "\"[ -~]{0,6}\"", Just("null".to_owned())],
            total in "(-?[0-9]{1,3}(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?|\"[0-9.]{0,5}\")",
            items in prop_oneof![
                Just("[]".to_owned()),
                Just("null".to_owned()),
                "\\[\\{\"sku\":\"[a-z ]{0,2}\",\"quantity\":[0-2],\"price\":[0-9]{1,2}(\\.[05])?\\}\\]",
            ],
        ) {
            let line = format!(r#"{{"orderId":{order_id},"userId":"u","total":{total},"items":{items}}}"#);
            if let Ok((order, command)) = Import::parse(&line) {
                assert_stays_readable(order, &command);
            }
        }

        #[test]
        fn no_text_makes_it_panic(line in ".{0,80}") {
            prop_assert!(Import::parse(&line).is_err());
        }
    }
}
