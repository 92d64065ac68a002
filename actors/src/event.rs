//! An event with its envelope: CloudEvents 1.0, structured JSON (`application/cloudevents+json`).

#[cfg(test)]
mod fixtures;
pub mod schema;
pub mod upcaster;

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::commit::Origin;
use crate::order::event::DecodeError;
use crate::order::{OrderEvent, OrderId, Version};
use crate::randomness;

/// Which event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct EventId(pub Uuid);

impl EventId {
    /// A new one.
    pub fn generate() -> Self {
        Self(randomness::uuid_v7())
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An event as it is sent, with its data as first written. Serialises as the contract's CloudEvents JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "CloudEvent", try_from = "CloudEvent")]
pub struct Envelope {
    /// Which event.
    pub id: EventId,
    /// Of which order.
    pub order: OrderId,
    /// Its number within the order.
    pub version: Version,
    /// `order.created` and so on.
    pub event_type: String,
    /// Of which schema its data is.
    pub schema_version: u32,
    /// When it was decided.
    pub recorded_at: Timestamp,
    /// Who caused it.
    pub origin: Origin,
    /// The data, exactly as first written.
    pub data: Box<RawValue>,
}

/// An event with its envelope: CloudEvents 1.0, structured JSON. Attributes that others added are to be left alone.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Envelope")]
struct CloudEvent {
    #[schemars(extend("const" = "1.0"))]
    specversion: Cow<'static, str>,
    /// Which event: the same whenever it comes again.
    id: EventId,
    #[schemars(extend("const" = "/orders"))]
    source: Cow<'static, str>,
    /// What happened: also the routing key.
    #[serde(rename = "type")]
    event_type: String,
    /// Which order.
    subject: OrderId,
    /// When it was decided. It never decreases within an order.
    time: Timestamp,
    #[schemars(extend("const" = "application/json"))]
    datacontenttype: Cow<'static, str>,
    /// The event's number within its order, from 1 without gaps.
    #[schemars(range(min = 1))]
    orderversion: Version,
    /// Of which schema of its type `data` is.
    #[schemars(range(min = 1))]
    schemaversion: u32,
    /// The same for everything that one request set off.
    correlationid: String,
    /// What caused it: the id of a request, or of an event.
    causationid: String,
    /// W3C trace context of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    traceparent: Option<String>,
    /// What kind of caller caused it.
    authtype: Cow<'static, str>,
    /// Which caller caused it.
    authid: Cow<'static, str>,
    /// What happened, as its type and schema version say.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    data: Box<RawValue>,
}

impl Envelope {
    /// What happened, in the newest schema of its type.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(&self) -> Result<OrderEvent, DecodeError> {
        OrderEvent::decode(&self.event_type, self.schema_version, &self.data)
    }
}

/// The envelope is not one of ours.
#[derive(Debug, thiserror::Error)]
#[error("specversion must be 1.0, source /orders and orderversion at least 1")]
struct NotOurs;

impl From<Envelope> for CloudEvent {
    fn from(event: Envelope) -> Self {
        Self {
            specversion: Cow::Borrowed("1.0"),
            id: event.id,
            source: Cow::Borrowed("/orders"),
            event_type: event.event_type,
            subject: event.order,
            time: event.recorded_at,
            datacontenttype: Cow::Borrowed("application/json"),
            orderversion: event.version,
            schemaversion: event.schema_version,
            correlationid: event.origin.correlation_id,
            causationid: event.origin.causation_id,
            traceparent: event.origin.traceparent,
            authtype: event.origin.authtype,
            authid: event.origin.authid,
            data: event.data,
        }
    }
}

impl TryFrom<CloudEvent> for Envelope {
    type Error = NotOurs;

    fn try_from(event: CloudEvent) -> Result<Self, NotOurs> {
        if event.specversion != "1.0" || event.source != "/orders" || event.orderversion < Version::FIRST {
            return Err(NotOurs);
        }
        Ok(Self {
            id: event.id,
            order: event.subject,
            version: event.orderversion,
            event_type: event.event_type,
            schema_version: event.schemaversion,
            recorded_at: event.time,
            origin: Origin {
                correlation_id: event.correlationid,
                causation_id: event.causationid,
                traceparent: event.traceparent,
                authtype: event.authtype,
                authid: event.authid,
            },
            data: event.data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../../tests/fixtures/events/order.created.v2.full.json");

    fn read(text: &str) -> Result<Envelope, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn data_stays_as_it_was_first_written() {
        let strange = r#"{ "total": 1.50,  "total2": 1e2, "deep": {"a":[1.0,"\u00e9"]} }"#;
        let (head, _) = TEXT.split_once(r#""data":"#).expect("data");
        let envelope = read(&format!(r#"{head}"data":{strange}}}"#)).expect("an envelope");
        assert_eq!(envelope.data.get(), strange);
        assert!(serde_json::to_string(&envelope).expect("encodes").contains(strange));
    }

    #[test]
    fn what_others_added_is_left_alone() {
        let envelope = read(&TEXT.replace(r#""source""#, r#""partitionkey":"x","source""#)).expect("an envelope");
        assert_eq!(envelope.event_type, "order.created");
    }

    #[test]
    fn an_envelope_that_is_not_ours_is_refused() {
        for (ours, foreign) in [
            (r#""specversion":"1.0""#, r#""specversion":"2.0""#),
            (r#""source":"/orders""#, r#""source":"/invoices""#),
            (r#""orderversion":1"#, r#""orderversion":0"#),
            (r#""orderversion":1"#, r#""orderversion":-1"#),
            (r#""orderversion":1,"#, ""),
            (r#""subject":"01939c2e-"#, r#""subject":"order-"#),
            (r#""time":"2026"#, r#""time":"yesterday"#),
            (r#""data":{"#, r#""daten":{"#),
        ] {
            assert!(TEXT.contains(ours), "{ours}");
            assert!(read(&TEXT.replace(ours, foreign)).is_err(), "{foreign}");
        }
        assert!(read(TEXT).is_ok());
    }
}
