//! JSON Schemas (draft 7) of everything that is sent: the envelope, and the data of every schema version of every event
//! type. The newest follow from the types of the code; earlier ones stand as they were when they were the newest, for
//! what was written then is still read and sent.
//!
//! A schema says what there is and never that there is no more: fields may be added without a new schema version.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};

use super::CloudEvent;
use crate::order::event::{Cancelled, Created, Delivered, EventKind, ItemRemoved, Line, Paid, Refunded, Shipped};

/// All schemas.
#[derive(Clone, Debug)]
pub struct Schemas {
    /// Of an event with its envelope, whatever its type.
    pub envelope: Value,
    /// Of the data of each type and version, in the order of [`EventKind::ALL`], versions rising.
    pub data: Vec<DataSchema>,
    /// What the others refer to, by name.
    pub definitions: Map<String, Value>,
}

/// What the data of an event type is in one schema version.
#[derive(Clone, Debug)]
pub struct DataSchema {
    /// Which type.
    pub kind: EventKind,
    /// Which version of it.
    pub version: u32,
    /// Its schema.
    pub schema: Value,
}

/// All schemas, for a document that has the definitions at `path`, such as `/components/schemas`.
///
/// # Errors
/// When a schema of this docket is not JSON.
pub fn schemas(path: &'static str) -> Result<Schemas, serde_json::Error> {
    let settings = SchemaSettings::draft07().for_serialize().with(|settings| {
        settings.definitions_path = path.into();
        settings.meta_schema = None;
    });
    let mut generator = SchemaGenerator::new(settings);
    let envelope = generator.subschema_for::<CloudEvent>().to_value();
    let mut data = Vec::new();
    for kind in EventKind::ALL.iter().copied() {
        for (version, text) in (1..).zip(earlier(kind)) {
            data.push(DataSchema { kind, version, schema: serde_json::from_str(text)? });
        }
        data.push(DataSchema { kind, version: kind.newest_schema(), schema: newest(kind, &mut generator) });
    }
    Ok(Schemas { envelope, data, definitions: generator.take_definitions(true) })
}

fn newest(kind: EventKind, generator: &mut SchemaGenerator) -> Value {
    let schema = match kind {
        EventKind::Created => generator.subschema_for::<Created>(),
        EventKind::ItemAdded => generator.subschema_for::<Line>(),
        EventKind::ItemRemoved => generator.subschema_for::<ItemRemoved>(),
        EventKind::Paid => generator.subschema_for::<Paid>(),
        EventKind::Shipped => generator.subschema_for::<Shipped>(),
        EventKind::Delivered => generator.subschema_for::<Delivered>(),
        EventKind::Cancelled => generator.subschema_for::<Cancelled>(),
        EventKind::Refunded => generator.subschema_for::<Refunded>(),
    };
    schema.to_value()
}

/// The schemas before the newest, from version 1.
fn earlier(kind: EventKind) -> &'static [&'static str] {
    match kind {
        EventKind::Created => &[include_str!("schema/order.created.v1.json")],
        EventKind::Shipped => &[include_str!("schema/order.shipped.v1.json")],
        EventKind::ItemAdded
        | EventKind::ItemRemoved
        | EventKind::Paid
        | EventKind::Delivered
        | EventKind::Cancelled
        | EventKind::Refunded => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_of_every_type_has_a_schema() {
        let schemas = schemas("/definitions").expect("JSON");
        let there: Vec<_> = schemas.data.iter().map(|data| (data.kind, data.version)).collect();
        let known: Vec<_> =
            EventKind::ALL.iter().flat_map(|kind| (1..=kind.newest_schema()).map(|version| (*kind, version))).collect();
        assert_eq!(there, known);
    }

    #[test]
    fn no_schema_forbids_fields_that_may_be_added_later() {
        let schemas = schemas("/definitions").expect("JSON");
        let text = serde_json::to_string(&schemas.definitions).expect("encodes");
        let data = schemas.data.iter().map(|data| data.schema.to_string());
        for text in data.chain([text]) {
            assert!(!text.contains("additionalProperties\":false"), "{text}");
        }
    }
}
