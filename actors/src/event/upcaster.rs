//! Upcasting: an event of an older schema becomes one of the newest, whenever it is read. One function a step, from
//! version n to n+1, from data to data; what is stored never changes. A step translates and nothing else: what it cannot
//! translate exactly is an error, never a guess. Limits are not its matter, they were checked when the event was accepted.
//!
//! A step writes the schema after it as that stood then, not with today's types, so that it never has to change.

use std::borrow::Cow;
use std::collections::HashMap;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::money::Amount;
use crate::order::command::SKU_CHARS_MAX;
use crate::order::event::EventKind;

/// A step: the data one schema version up, or what is wrong with it.
type Step = fn(&RawValue) -> Result<Box<RawValue>, String>;

/// The steps of a kind of event, the first from schema version 1 to 2: one fewer than it has schema versions.
fn steps(kind: EventKind) -> &'static [Step] {
    match kind {
        EventKind::Created => &[created_1_to_2],
        EventKind::Shipped => &[shipped_1_to_2],
        EventKind::ItemAdded
        | EventKind::ItemRemoved
        | EventKind::Paid
        | EventKind::Delivered
        | EventKind::Cancelled
        | EventKind::Refunded => &[],
    }
}

/// `data` of `schema_version` in the newest schema of its kind; the same when it is that already.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn upcast(kind: EventKind, schema_version: u32, data: &RawValue) -> Result<Cow<'_, RawValue>, String> {
    let done = schema_version.checked_sub(1).and_then(|steps| usize::try_from(steps).ok());
    let left = done.and_then(|done| steps(kind).get(done..)).ok_or("there is no such schema version")?;
    let mut data = Cow::Borrowed(data);
    for step in left {
        data = Cow::Owned(step(&data)?);
    }
    Ok(data)
}

/// `order.created` of an older system: amounts are decimals in euros, and there may be no lines.
#[derive(Deserialize)]
struct Created1<'a> {
    #[serde(rename = "userId", borrow)]
    user_id: &'a RawValue,
    #[serde(borrow)]
    total: &'a RawValue,
    #[serde(default, borrow)]
    items: Option<Vec<Item1<'a>>>,
}

#[derive(Deserialize)]
struct Item1<'a> {
    sku: String,
    #[serde(borrow)]
    quantity: &'a RawValue,
    #[serde(borrow)]
    price: &'a RawValue,
}

struct Line2 {
    sku: String,
    quantity: u32,
    unit_price: Amount,
}

fn created_1_to_2(data: &RawValue) -> Result<Box<RawValue>, String> {
    let created: Created1<'_> = serde_json::from_str(data.get()).map_err(|error| error.to_string())?;
    let customer_id = id(created.user_id).ok_or("userId must be a string or a whole number")?;
    let total = minor_units(created.total).map_err(|reason| format!("total {reason}"))?;
    let lines = match created.items {
        Some(items) if !items.is_empty() => lines(&items)?,
        Some(_) | None => vec![Line2 { sku: "legacy".to_owned(), quantity: 1, unit_price: total }],
    };
    let items: Vec<_> = lines
        .iter()
        .map(|line| json!({"sku": line.sku, "quantity": line.quantity, "unit_price": line.unit_price}))
        .collect();
    let data = json!({
        "personal": {"customer_id": customer_id},
        "currency": "EUR",
        "items": items,
        "total": total,
    });
    to_raw_value(&data).map_err(|error| error.to_string())
}

/// `order.shipped` with the tracking number among what is not personal.
#[derive(Deserialize)]
struct Shipped1 {
    carrier: String,
    tracking_number: String,
}

fn shipped_1_to_2(data: &RawValue) -> Result<Box<RawValue>, String> {
    let Shipped1 { carrier, tracking_number } = serde_json::from_str(data.get()).map_err(|error| error.to_string())?;
    let data = json!({"personal": {"tracking_number": tracking_number}, "carrier": carrier});
    to_raw_value(&data).map_err(|error| error.to_string())
}

/// Each sku once: what stands there twice at one price is one line, at two prices nobody knows what was meant.
fn lines(items: &[Item1<'_>]) -> Result<Vec<Line2>, String> {
    let mut lines: Vec<Line2> = Vec::with_capacity(items.len());
    let mut places = HashMap::new();
    for Item1 { sku, quantity, price } in items {
        let name = short(sku);
        let quantity = count(quantity).ok_or_else(|| format!("the quantity of {name:?} must be a whole number"))?;
        let unit_price = minor_units(price).map_err(|reason| format!("the price of {name:?} {reason}"))?;
        let place = *places.entry(sku.as_str()).or_insert(lines.len());
        match lines.get_mut(place) {
            Some(line) if line.unit_price != unit_price => {
                return Err(format!("{name:?} is there at two prices"));
            }
            Some(line) => {
                let sum = line.quantity.checked_add(quantity);
                line.quantity = sum.ok_or_else(|| format!("the quantities of {name:?} are too large together"))?;
            }
            None => lines.push(Line2 { sku: sku.clone(), quantity, unit_price }),
        }
    }
    Ok(lines)
}

/// As much of a sku as an error needs: what is wrong may be its length.
pub(crate) fn short(sku: &str) -> &str {
    sku.char_indices().nth(SKU_CHARS_MAX).map_or(sku, |(end, _)| &sku[..end])
}

/// A string as it is, a whole number as it is written. Also the older shape's `orderId`.
pub(crate) fn id(value: &RawValue) -> Option<String> {
    let text = value.get();
    if text.starts_with('"') {
        return serde_json::from_str(text).ok();
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.to_owned())
}

fn minor_units(value: &RawValue) -> Result<Amount, &'static str> {
    let major = decimal(value).ok_or("must be a number of at most 28 digits")?;
    if major < Decimal::ZERO {
        return Err("must not be negative");
    }
    let minor = major.checked_mul(Decimal::ONE_HUNDRED).ok_or("is too large")?;
    if !minor.fract().is_zero() {
        return Err("must not have more than two decimals");
    }
    i64::try_from(minor).ok().and_then(|minor| Amount::try_from(minor).ok()).ok_or("is too large")
}

fn count(value: &RawValue) -> Option<u32> {
    decimal(value).filter(|number| number.fract().is_zero()).and_then(|number| u32::try_from(number).ok())
}

/// The number exactly as it is written, also when it is written as a string. Never through a binary fraction.
fn decimal(value: &RawValue) -> Option<Decimal> {
    let text: Cow<'_, str> = match value.get() {
        text if text.starts_with('"') => Cow::Owned(serde_json::from_str(text).ok()?),
        text => Cow::Borrowed(text),
    };
    // Only what JSON calls a number: `Decimal` would also read "1_000", ".5" and "+1".
    let number: &RawValue = serde_json::from_str(&text).ok()?;
    if number.get() != text || !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    match text.split_once(['e', 'E']) {
        None => Decimal::from_str_exact(&text).ok(),
        Some((digits, _)) => {
            Decimal::from_str_exact(digits).ok()?; // `from_scientific` would round what this refuses
            Decimal::from_scientific(&text).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).expect("JSON")
    }

    fn upcast_1(json: &str) -> Result<serde_json::Value, String> {
        upcast(EventKind::Created, 1, raw(json)).map(|data| serde_json::from_str(data.get()).expect("JSON comes out"))
    }

    #[test]
    fn every_kind_has_a_step_to_each_schema_version_but_the_first() {
        for kind in EventKind::ALL.iter().copied() {
            assert_eq!(steps(kind).len() + 1, kind.newest_schema() as usize, "{kind}");
        }
    }

    #[test]
    fn the_newest_stays_as_it_is_and_others_are_not_there() {
        let data = raw(r#"{ "reason":"x" }"#);
        assert_eq!(upcast(EventKind::Cancelled, 1, data).expect("the newest").get(), data.get());
        assert!(upcast(EventKind::Cancelled, 0, data).is_err());
        assert!(upcast(EventKind::Cancelled, 2, data).is_err());
        assert!(upcast(EventKind::Cancelled, u32::MAX, data).is_err());
    }

    #[test]
    fn a_tracking_number_becomes_personal_as_it_stands() {
        let upcast = |json| upcast(EventKind::Shipped, 1, raw(json)).map(|data| data.get().to_owned());
        let data = upcast(r#"{"tracking_number":" JD\u00e9 ","note":1,"carrier":""}"#).expect("upcast");
        let data: serde_json::Value = serde_json::from_str(&data).expect("JSON");
        assert_eq!(data, json!({"personal": {"tracking_number": " JDé "}, "carrier": ""}));
        for (json, reason) in [
            (r#"{"carrier":"DHL"}"#, "missing field `tracking_number`"),
            (r#"{"tracking_number":"1"}"#, "missing field `carrier`"),
            (r#"{"carrier":"DHL","tracking_number":1}"#, "invalid type"),
            (r#"{"carrier":"DHL","personal":{"tracking_number":"1"}}"#, "missing field `tracking_number`"),
        ] {
            let error = upcast(json).expect_err(json);
            assert!(error.contains(reason), "{json}: {error}");
        }
    }

    #[test]
    fn amounts_are_read_exactly() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("12.5", 1250),
            ("12.500", 1250),
            ("\"12.50\"", 1250),
            ("0.07", 7),
            ("1.15", 115), // 114.99999999999999 as a binary fraction
            ("1e2", 10_000),
            ("1.25E+1", 1250),
            ("125e-2", 125),
            ("90071992547409.91", crate::money::AMOUNT_MAX),
        ] {
            assert_eq!(minor_units(raw(text)).map(Amount::minor_units), Ok(expected), "{text}");
        }
    }

    #[test]
    fn amounts_that_are_not_exact_are_refused() {
        let number = "must be a number of at most 28 digits";
        for (text, reason) in [
            ("0.001", "must not have more than two decimals"),
            ("1e-3", "must not have more than two decimals"),
            ("-0.01", "must not be negative"),
            ("90071992547409.92", "is too large"),
            ("1e27", "is too large"),
            ("79228162514264337593543950335", "is too large"),
            ("1e400", number),
            ("0.00000000000000000000000000000000000001", number),
            ("1.00000000000000000000000000000000000001", number),
            ("1.00000000000000000000000000000000000001e0", number),
            ("true", number),
            ("null", number),
            ("[1]", number),
            ("\"\"", number),
            ("\" 1\"", number),
            ("\"1_000\"", number),
            ("\"+1\"", number),
            ("\".5\"", number),
            ("\"1,50\"", number),
            ("\"\\\"1\\\"\"", number),
            ("\"NaN\"", number),
        ] {
            assert_eq!(minor_units(raw(text)), Err(reason), "{text}");
        }
    }

    #[test]
    fn an_order_without_lines_gets_one_of_its_total() {
        for items in ["", r#","items":[]"#, r#","items":null"#] {
            let data = upcast_1(&format!(r#"{{"orderId":"o","userId":"u","total":5{items}}}"#)).expect("upcast");
            let expected = json!({
                "personal": {"customer_id": "u"},
                "currency": "EUR",
                "items": [{"sku": "legacy", "quantity": 1, "unit_price": 500}],
                "total": 500,
            });
            assert_eq!(data, expected);
        }
    }

    #[test]
    fn a_sku_that_stands_there_twice_is_one_line() {
        let data = upcast_1(
            r#"{"userId":1,"total":9,"items":[{"sku":"A","quantity":1,"price":3},{"sku":"B","quantity":0,"price":3},
               {"sku":"A","quantity":2.0,"price":"3.00"}]}"#,
        );
        let expected = json!([
            {"sku": "A", "quantity": 3, "unit_price": 300},
            {"sku": "B", "quantity": 0, "unit_price": 300},
        ]);
        assert_eq!(data.expect("upcast")["items"], expected);
    }

    #[test]
    fn what_cannot_be_translated_says_why() {
        let items = |items: &str| format!(r#"{{"userId":"u","total":1,"items":[{items}]}}"#);
        for (json, reason) in [
            (r#"{"total":1}"#.to_owned(), "missing field `userId`"),
            (r#"{"userId":"u"}"#.to_owned(), "missing field `total`"),
            (r#"{"userId":1.5,"total":1}"#.to_owned(), "userId must be a string or a whole number"),
            (r#"{"userId":null,"total":1}"#.to_owned(), "userId must be a string or a whole number"),
            (r#"{"userId":"u","total":"x"}"#.to_owned(), "total must be a number"),
            (r#"{"userId":"u","total":1,"total":1}"#.to_owned(), "duplicate field `total`"),
            (items(r#"{"sku":"A","quantity":1}"#), "missing field `price`"),
            (items(r#"{"sku":"A","quantity":1.5,"price":1}"#), "the quantity of \"A\" must be a whole number"),
            (items(r#"{"sku":"A","quantity":-1,"price":1}"#), "the quantity of \"A\" must be a whole number"),
            (items(r#"{"sku":"A","quantity":1,"price":-1}"#), "the price of \"A\" must not be negative"),
            (
                items(r#"{"sku":"A","quantity":1,"price":1},{"sku":"A","quantity":1,"price":2}"#),
                "\"A\" is there at two prices",
            ),
            (
                items(r#"{"sku":"A","quantity":4294967295,"price":1},{"sku":"A","quantity":1,"price":1}"#),
                "the quantities of \"A\" are too large together",
            ),
        ] {
            let error = upcast_1(&json).expect_err(&json);
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
