//! The wire format, held by files: `tests/fixtures/events/` has an envelope of every schema version of every event type
//! ever written. A file never changes; a new schema version brings new ones.
//!
//! `TYPE.vN.VARIANT.json` is an envelope. Where N is not the newest version, `TYPE.vN.VARIANT.expected.json` is its data
//! after upcasting.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use uuid::Uuid;

use super::{Envelope, EventId};
use crate::clock::Timestamp;
use crate::commit::Origin;
use crate::money::Currency;
use crate::order::Version;
use crate::order::event::{Created, EventKind, OrderEvent, Personal, total_of};
use crate::order::given_when_then::{cancelled, created, delivered, line, order_id, paid, refunded, removed, shipped};

/// Every event as this docket writes it, exhaustively: the variant, the version in its order, the event.
fn written_today(kind: EventKind) -> Vec<(&'static str, u32, OrderEvent)> {
    match kind {
        EventKind::Created => {
            let items = vec![line("A-1", 1_000_000, 9_007_199_254)];
            let minimal = Created {
                personal: Personal { customer_id: "Zoë".to_owned(), email: None },
                reference: None,
                currency: Currency::try_from("JPY").expect("the yen"),
                total: total_of(&items).expect("a total"),
                items,
            };
            vec![
                ("full", 1, created(&[line("A-1", 2, 4995), line("B-1", 1, 0)])),
                ("minimal", 1, OrderEvent::Created(minimal)),
            ]
        }
        EventKind::ItemAdded => vec![("plain", 2, OrderEvent::ItemAdded(line("C-1", 3, 10)))],
        EventKind::ItemRemoved => vec![("plain", 2, removed("B-1"))],
        EventKind::Paid => vec![("plain", 2, paid(9990))],
        EventKind::Shipped => vec![("plain", 3, shipped())],
        EventKind::Delivered => vec![("plain", 4, delivered())],
        EventKind::Cancelled => vec![("plain", 2, cancelled())],
        EventKind::Refunded => vec![("plain", 5, refunded(9990, "broken"))],
    }
}

/// The `n`th of them, in its envelope.
fn envelope(n: u8, variant: &str, version: u32, event: &OrderEvent) -> Envelope {
    let id = |last: u8| Uuid::from_u128(0x0193_9c2e_0000_7000_8000_0000_0000_0000 + u128::from(last));
    Envelope {
        id: EventId(id(0x10 + n)),
        order: order_id(),
        version: Version(version),
        event_type: event.event_type().to_owned(),
        schema_version: event.kind().newest_schema(),
        recorded_at: Timestamp::from_millis(1_795_420_800_000 + i64::from(n)),
        origin: Origin {
            correlation_id: "checkout-42".to_owned(),
            causation_id: id(0xff).to_string(),
            traceparent: (variant == "full")
                .then(|| "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            authtype: Cow::Borrowed("system"),
            authid: Cow::Borrowed("anonymous"),
        },
        data: event.encode().expect("every event can be encoded"),
    }
}

/// The files, by name without `.json`.
fn fixtures() -> BTreeMap<String, String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/events");
    let files = std::fs::read_dir(folder).expect("the folder of fixtures");
    files
        .map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            let name = name.strip_suffix(".json").unwrap_or_else(|| panic!("{name} is no .json file"));
            (name.to_owned(), std::fs::read_to_string(&path).expect("a text"))
        })
        .collect()
}

#[test]
fn what_is_written_today_is_what_was_written_before_byte_for_byte() {
    let fixtures = fixtures();
    let events = EventKind::ALL.iter().flat_map(|kind| written_today(*kind));
    for (n, (variant, version, event)) in (0..).zip(events) {
        let name = format!("{}.v{}.{variant}", event.event_type(), event.kind().newest_schema());
        let written = serde_json::to_string(&envelope(n, variant, version, &event)).expect("encodes");
        let fixture = fixtures.get(&name).unwrap_or_else(|| panic!("no fixture {name}.json; it would be\n{written}"));
        assert_eq!(format!("{written}\n"), *fixture, "{name}");
    }
}

#[test]
fn every_event_ever_written_can_be_read() {
    let fixtures = fixtures();
    let mut read = BTreeSet::new();
    for (name, text) in fixtures.iter().filter(|(name, _)| !name.ends_with(".expected")) {
        let envelope: Envelope = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let prefix = format!("{}.v{}.", envelope.event_type, envelope.schema_version);
        assert!(name.starts_with(&prefix), "{name} holds {prefix}");
        let again = serde_json::to_string(&envelope).expect("encodes");
        assert_eq!(format!("{again}\n"), *text, "{name}: an envelope that was read is sent on as it was");

        let event = envelope.decode().unwrap_or_else(|error| panic!("{name}: {error}"));
        let upcast = event.encode().expect("encodes");
        let newest = event.kind().newest_schema();
        match fixtures.get(&format!("{name}.expected")) {
            Some(expected) => assert_eq!(format!("{upcast}\n"), *expected, "{name}"),
            None => {
                assert_eq!(
                    envelope.schema_version, newest,
                    "{name} lacks its .expected.json, which would be\n{upcast}"
                );
                assert_eq!(upcast.get(), envelope.data.get(), "{name}");
            }
        }
        read.insert((envelope.event_type, envelope.schema_version));
    }
    let known: BTreeSet<_> = EventKind::ALL
        .iter()
        .flat_map(|kind| (1..=kind.newest_schema()).map(|schema| (kind.event_type().to_owned(), schema)))
        .collect();
    assert_eq!(read, known, "a fixture for every type and schema version");
}

#[test]
fn every_expectation_has_its_fixture() {
    let fixtures = fixtures();
    for name in fixtures.keys().filter_map(|name| name.strip_suffix(".expected")) {
        assert!(fixtures.contains_key(name), "{name}.json is missing");
    }
}
