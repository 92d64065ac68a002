//! The AsyncAPI document: what programs outside get from the broker. Made from the code: the event types with every
//! schema version, their schemas (`actors::event::schema`), and the names that the broker's adapter declares.
//!
//! Never says where the broker is, nor anything that only docket's own consumers rely on.

use actors::event::schema::{DataSchema, schemas};
use actors::order::event::EventKind;
use serde_json::{Map, Value, json};

use crate::rabbit::{EVENTS, ORDER_HEADER};

const SCHEMAS: &str = "/components/schemas";
const BINDING_VERSION: &str = "0.3.0";

const ABOUT: &str = "Every event of every order, in the order of the log, as CloudEvents 1.0 in structured JSON. Declare \
    a durable queue of your own and bind it to the topic exchange `orders` with `order.#`, or with the types that you \
    need. While that queue exists everything reaches it at least once, in the order of the log: recognise what comes \
    again by `subject` and `orderversion`. What the broker refused for a moment comes again, also after later events of its \
    order. What was before the queue, or was lost with it, is in the log: `/history` of the operators' address.\n\n\
    Fields and event types may be added at any time: leave alone what you do not know. Whatever else changes in the data \
    of a type is a new `schemaversion`, described here beside the earlier ones, which go on being sent as they were \
    written.";

/// The document.
///
/// # Errors
/// When a schema of this docket is not JSON.
pub(crate) fn document() -> Result<Value, serde_json::Error> {
    let schemas = schemas(SCHEMAS)?;
    let mut definitions = schemas.definitions;
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for kind in EventKind::ALL.iter().copied() {
        let versions: Vec<_> = schemas.data.iter().filter(|data| data.kind == kind).collect();
        for data in &versions {
            definitions.insert(schema_name(data), data.schema.clone());
            messages.insert(message_name(data), message(data, &schemas.envelope));
        }
        channels.insert(kind.event_type().to_owned(), routed(kind, &versions));
        operations.insert(format!("send.{kind}"), sending(kind, &versions));
    }
    channels.insert("queue".to_owned(), queue(&schemas.data));
    channels.insert("dead".to_owned(), dead_letters());
    operations.insert("receive".to_owned(), receiving());
    Ok(json!({
        "asyncapi": "3.0.0",
        "id": "urn:docket:orders",
        "info": {
            "title": "docket: events of orders",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": env!("CARGO_PKG_LICENSE")},
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": definitions},
    }))
}

/// The routing key of a type, on the exchange.
fn routed(kind: EventKind, versions: &[&DataSchema]) -> Value {
    json!({
        "address": kind.event_type(),
        "description": "The routing key is the event's type.",
        "messages": references(versions.iter().copied()),
        "bindings": {"amqp": {
            "is": "routingKey",
            "exchange": {"name": EVENTS, "type": "topic", "durable": true, "autoDelete": false},
            "bindingVersion": BINDING_VERSION,
        }},
    })
}

/// A subscriber's queue: also how one outside is best made.
fn queue(all: &[DataSchema]) -> Value {
    json!({
        "address": "orders.{subscriber}",
        "description": "The quorum queue of a subscriber of docket's own, bound with `order.#`. With partitions there is \
            one for each: `orders.{subscriber}.0` and so on. Consumers outside have queues of their own, with names that \
            do not begin with `orders.`: a message goes to one consumer of a queue only.",
        "parameters": {"subscriber": subscriber()},
        "messages": references(all),
        "bindings": {"amqp": durable("orders.{subscriber}")},
    })
}

/// Where docket's own subscribers leave what nobody can read.
fn dead_letters() -> Value {
    json!({
        "address": "orders.{subscriber}.dead",
        "description": "What came to a subscriber's queue and cannot be read as an event, with the reason in its headers. \
            Its content can be anything.",
        "parameters": {"subscriber": subscriber()},
        "bindings": {"amqp": durable("orders.{subscriber}.dead")},
    })
}

fn subscriber() -> Value {
    json!({"description": "The name of a subscriber.", "examples": ["notification"]})
}

fn durable(name: &str) -> Value {
    json!({
        "is": "queue",
        "queue": {"name": name, "durable": true, "exclusive": false, "autoDelete": false},
        "bindingVersion": BINDING_VERSION,
    })
}

fn sending(kind: EventKind, versions: &[&DataSchema]) -> Value {
    let messages: Vec<_> = versions.iter().map(|data| of_channel(kind.event_type(), data)).collect();
    json!({
        "action": "send",
        "channel": {"$ref": format!("#/channels/{kind}")},
        "summary": format!("docket sends `{kind}`, persistent, and repeats it until the broker confirms it."),
        "messages": messages,
        "bindings": {"amqp": {"deliveryMode": 2, "mandatory": true, "bindingVersion": BINDING_VERSION}},
    })
}

fn receiving() -> Value {
    json!({
        "action": "receive",
        "channel": {"$ref": "#/channels/queue"},
        "summary": "A subscriber of docket acknowledges what is stored, one active consumer a queue.",
        "bindings": {"amqp": {"ack": true, "bindingVersion": BINDING_VERSION}},
    })
}

fn message(data: &DataSchema, envelope: &Value) -> Value {
    let (kind, version) = (data.kind, data.version);
    json!({
        "name": kind.event_type(),
        "title": format!("{kind}, schema version {version}"),
        "contentType": "application/cloudevents+json",
        "description": "AMQP properties: `message_id` is the event's `id`, `type` its type, `correlation_id` its \
            `correlationid`; `delivery_mode` 2.",
        "correlationId": {"location": "$message.payload#/correlationid"},
        "headers": {
            "type": "object",
            "required": [ORDER_HEADER],
            "properties": {ORDER_HEADER: {"type": "string", "format": "uuid", "description": "Which order."}},
        },
        "payload": {"allOf": [envelope, {"properties": {
            "type": {"const": kind.event_type()},
            "schemaversion": {"const": version},
            "data": {"$ref": format!("#{SCHEMAS}/{}", schema_name(data))},
        }}]},
        "bindings": {"amqp": {"messageType": kind.event_type(), "bindingVersion": BINDING_VERSION}},
    })
}

fn references<'a>(of: impl IntoIterator<Item = &'a DataSchema>) -> Map<String, Value> {
    let reference = |data| json!({"$ref": format!("#/components/messages/{}", message_name(data))});
    of.into_iter().map(|data| (message_name(data), reference(data))).collect()
}

fn of_channel(channel: &str, data: &DataSchema) -> Value {
    json!({"$ref": format!("#/channels/{channel}/messages/{}", message_name(data))})
}

fn message_name(data: &DataSchema) -> String {
    format!("{}.v{}", data.kind, data.version)
}

fn schema_name(data: &DataSchema) -> String {
    format!("{}.data", message_name(data))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn fixtures(folder: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).join(folder)
    }

    /// A validator of one message's payload: the document, with everything else reachable by its references.
    fn payload(name: &str) -> jsonschema::Validator {
        let mut document = document().expect("the document");
        assert!(document["components"]["messages"][name].is_object(), "{name} is not described");
        document["$schema"] = json!("http://json-schema.org/draft-07/schema#");
        document["allOf"] = json!([{"$ref": format!("#/components/messages/{name}/payload")}]);
        jsonschema::options().should_validate_formats(true).build(&document).expect("a schema")
    }

    fn said(validator: &jsonschema::Validator, value: &Value) -> Vec<String> {
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    /// The envelopes among the fixtures, each with the name of its message.
    fn events() -> Vec<(String, String, Value)> {
        let mut events = Vec::new();
        for entry in fs::read_dir(fixtures("events")).expect("the fixtures") {
            let path = entry.expect("a file").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            if !name.ends_with(".expected.json") {
                let event: Value = serde_json::from_slice(&fs::read(&path).expect("a fixture")).expect("JSON");
                let (kind, version) = (event["type"].as_str().expect("a type"), &event["schemaversion"]);
                events.push((name, format!("{kind}.v{version}"), event));
            }
        }
        events
    }

    #[test]
    fn the_document_is_one_by_the_official_schema() {
        let schema = fs::read(fixtures("asyncapi/3.0.0.json")).expect("the schema");
        let schema = serde_json::from_slice(&schema).expect("JSON");
        let official = jsonschema::draft7::new(&schema).expect("a schema");
        let document = document().expect("the document");
        assert_eq!(said(&official, &document), Vec::<String>::new());

        let mut wrong = document;
        wrong["channels"]["order.paid"]["bindings"]["amqp"]["exchange"] = json!("orders");
        assert!(!official.is_valid(&wrong));
    }

    #[test]
    fn every_event_ever_written_is_as_its_message_says() {
        let mut seen = BTreeSet::new();
        for (file, message, event) in events() {
            assert_eq!(said(&payload(&message), &event), Vec::<String>::new(), "{file}");
            seen.insert(message);
        }
        let document = document().expect("the document");
        let described = document["components"]["messages"].as_object().expect("messages");
        assert_eq!(seen, described.keys().cloned().collect(), "a fixture for every message");
    }

    #[test]
    fn an_event_that_lacks_something_is_not_as_its_message_says() {
        for (file, message, event) in events() {
            let (validator, fields) = (payload(&message), event["data"].as_object().expect("data"));
            let optional = ["reference", "items", "traceparent"];
            for field in fields.keys().filter(|field| message.ends_with("v2") && !optional.contains(&field.as_str())) {
                let mut less = event.clone();
                less["data"].as_object_mut().expect("data").remove(field);
                assert!(!validator.is_valid(&less), "{file} without {field}");
            }
            for attribute in event.as_object().expect("attributes").keys().filter(|a| !optional.contains(&a.as_str())) {
                let mut less = event.clone();
                less.as_object_mut().expect("attributes").remove(attribute);
                assert!(!validator.is_valid(&less), "{file} without {attribute}");
            }
            let mut other = event.clone();
            other["schemaversion"] = json!(99);
            assert!(!validator.is_valid(&other), "{file} of another schema version");
            let mut more = event.clone();
            more["data"]["added"] = json!("later");
            more["added"] = json!("later");
            assert!(validator.is_valid(&more), "{file} with what was added later");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document().expect("the document");
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > EventKind::ALL.len());
        for reference in references {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| collect(value, references));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
