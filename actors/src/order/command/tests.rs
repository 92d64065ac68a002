//! What makes a command well formed, field by field, whatever the order's state.

use super::*;
use crate::order::given_when_then::{cancel, create, import, item, line, pay, refund, ship};

fn errors(command: &Command) -> Vec<(String, String)> {
    command.validate().into_iter().map(|error| (error.field, error.reason)).collect()
}

/// The fields that are wrong, in the order of their report.
fn wrong(command: &Command) -> Vec<String> {
    errors(command).into_iter().map(|(field, _)| field).collect()
}

fn creation(change: impl FnOnce(&mut Create)) -> Command {
    let mut create = create(&[item("A-1", 2, 4995)]);
    change(&mut create);
    Command::Create(create)
}

#[test]
fn what_the_contract_shows_is_well_formed() {
    let commands = [
        creation(|_| {}),
        creation(|create| {
            create.email = None;
            create.reference = None;
        }),
        Command::AddItem(item("A-1", 1, 0)),
        Command::RemoveItem { sku: "A-1".to_owned() },
        pay(0),
        pay(AMOUNT_MAX),
        ship(),
        Command::Deliver,
        cancel(),
        refund(None),
        refund(Some(1)),
        import(r#"{"orderId":1,"userId":1,"total":0}"#),
    ];
    for command in commands {
        assert_eq!(errors(&command), [], "{command:?}");
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let command = Command::Create(Create {
        customer_id: String::new(),
        email: Some("ana".to_owned()),
        reference: Some("a\tb".to_owned()),
        currency: "eur".to_owned(),
        items: vec![item("A-1", 1, 1), item("A 2", 0, -1), item("A-1", QUANTITY_MAX + 1, AMOUNT_MAX + 1)],
    });
    let range = |from: i64, to: i64| format!("must be a whole number from {from} to {to}");
    let sku = "must be 1 to 64 characters of A-Z a-z 0-9 . _ ~ -".to_owned();
    let expected = [
        ("customer_id", "must have 1 to 128 characters".to_owned()),
        ("email", "must be an email address of at most 254 characters".to_owned()),
        ("reference", "must not have control characters".to_owned()),
        ("currency", "not a currency code of ISO 4217 such as EUR".to_owned()),
        ("items", TOTAL_RULE.to_owned()),
        ("items[1].sku", sku),
        ("items[1].quantity", range(1, 1_000_000)),
        ("items[1].unit_price", range(0, AMOUNT_MAX)),
        ("items[2].quantity", range(1, 1_000_000)),
        ("items[2].unit_price", range(0, AMOUNT_MAX)),
        ("items[2].sku", "must be there only once".to_owned()),
    ];
    assert_eq!(errors(&command), expected.map(|(field, reason)| (field.to_owned(), reason)));
}

#[test]
fn a_line_alone_has_no_path() {
    let command = Command::AddItem(item("", 0, -1));
    assert_eq!(wrong(&command), ["sku", "quantity", "unit_price"]);
}

#[test]
fn texts_have_their_lengths_in_characters() {
    type Make = fn(String) -> Command;
    let texts: [(&str, usize, Make); 8] = [
        ("customer_id", 128, |text| creation(|create| create.customer_id = text)),
        ("reference", 128, |text| creation(|create| create.reference = Some(text))),
        ("reference", 128, |reference| Command::Pay { amount: 1, reference }),
        ("carrier", 128, |carrier| Command::Ship { carrier, tracking_number: "1".to_owned() }),
        ("tracking_number", 128, |tracking_number| Command::Ship { carrier: "c".to_owned(), tracking_number }),
        ("reason", 500, |reason| Command::Cancel { reason }),
        ("reason", 500, |reason| Command::Refund { reason, amount: None }),
        ("reason", 500, |reason| Command::Refund { reason, amount: Some(1) }),
    ];
    for (field, max, make) in texts {
        assert!(wrong(&make("ü".repeat(max))).is_empty(), "{field}");
        assert_eq!(wrong(&make("ü".repeat(max + 1))), [field]);
        assert_eq!(wrong(&make(String::new())), [field]);
        for control in ["\0", "\n", "\r\n", "\u{7f}", "\u{85}"] {
            assert_eq!(wrong(&make(format!("a{control}b"))), [field], "{control:?}");
        }
    }
}

#[test]
fn a_sku_is_short_and_fits_into_a_path() {
    for good in ["A", "a.b_c~d-9", &"x".repeat(64)] {
        assert!(wrong(&Command::AddItem(item(good, 1, 1))).is_empty(), "{good}");
    }
    for bad in ["", " ", "a/b", "a%20b", "ä", "a\n", &"x".repeat(65)] {
        assert_eq!(wrong(&Command::AddItem(item(bad, 1, 1))), ["sku"], "{bad}");
    }
}

#[test]
fn numbers_have_their_ranges() {
    for (quantity, good) in [(i64::MIN, false), (0, false), (1, true), (1_000_000, true), (1_000_001, false)] {
        assert_eq!(wrong(&Command::AddItem(item("A", quantity, 1))).is_empty(), good, "{quantity}");
    }
    for (price, good) in [(-1, false), (0, true), (AMOUNT_MAX, true), (AMOUNT_MAX + 1, false), (i64::MAX, false)] {
        assert_eq!(wrong(&Command::AddItem(item("A", 1, price))).is_empty(), good, "{price}");
        assert!(wrong(&pay(price)).is_empty(), "the order knows the right amount");
        assert_eq!(wrong(&refund(Some(price))).is_empty(), good && price > 0, "{price}");
    }
}

#[test]
fn an_order_has_one_to_a_thousand_lines() {
    let lines = |count: usize| (0..count).map(|n| item(&n.to_string(), 1, 1)).collect::<Vec<_>>();
    for (count, expected) in [(0, vec!["items"]), (1, vec![]), (1_000, vec![]), (1_001, vec!["items"])] {
        assert_eq!(wrong(&creation(|create| create.items = lines(count))), expected, "{count}");
    }
}

#[test]
fn a_total_that_overflows_is_wrong_and_nothing_else_overflows() {
    let largest = vec![item("A", 1, AMOUNT_MAX - 1), item("B", 1, 1)];
    assert!(wrong(&creation(|create| create.items = largest)).is_empty());
    let one_more = vec![item("A", 1, AMOUNT_MAX), item("B", 1, 1)];
    assert_eq!(wrong(&creation(|create| create.items = one_more)), ["items"]);
    let absurd: Vec<_> = (0..1_000).map(|n| item(&n.to_string(), i64::MAX, i64::MAX)).collect();
    assert_eq!(wrong(&creation(|create| create.items = absurd)).len(), 2_001);
}

#[test]
fn an_email_address_is_one_that_the_mailer_takes() {
    for good in ["ana@example.com", "a@b", "o'neil+x@mail.example.org", "jörg@exämple.de"] {
        assert!(wrong(&creation(|create| create.email = Some(good.to_owned()))).is_empty(), "{good}");
    }
    let long = format!("{}@{}.example", "a".repeat(64), "b.".repeat(94));
    for bad in ["", "@", "ana", "ana@", "@example.com", "a b@example.com", "a@b@c", "Ana <a@b.de>", &long] {
        assert_eq!(wrong(&creation(|create| create.email = Some(bad.to_owned()))), ["email"], "{bad}");
    }
    let split = creation(|create| create.email = Some("a@b.de\r\nBcc: x@y.de".to_owned()));
    assert_eq!(wrong(&split), ["email", "email"]);
}

#[test]
fn only_currencies_of_iso_4217_are_taken() {
    for (code, good) in [("EUR", true), ("JPY", true), ("BHD", true), ("eur", false), ("EURO", false), ("", false)] {
        assert_eq!(wrong(&creation(|create| create.currency = code.to_owned())).is_empty(), good, "{code}");
    }
}

#[test]
fn what_finishes_an_order_may_use_the_last_commands() {
    let finishing: Vec<_> = CommandKind::ALL.iter().filter(|kind| kind.finishes()).map(|kind| kind.name()).collect();
    assert_eq!(finishing, ["pay", "ship", "deliver", "cancel", "refund"]);
}

#[test]
fn events_are_stored_in_the_newest_schema() {
    let event = OrderEvent::ItemAdded(line("A-1", 1, 1));
    let stored = Command::AddItem(item("A-1", 1, 1)).stored_form(EventId::generate(), &event).expect("encodes");
    assert_eq!((stored.event_type.as_str(), stored.schema_version), ("order.item_added", 1));
    assert_eq!(stored.data.get(), r#"{"sku":"A-1","quantity":1,"unit_price":1}"#);
}
