//! An order and its trail as callers see them.

use actors::clock::Timestamp;
use actors::event::Envelope;
use actors::order::directory::Trail;
use actors::order::event::Line;
use actors::order::{Order, OrderId};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::request::NewItem;

/// An order at one version. What has not happened is absent.
#[derive(Serialize, ToSchema)]
#[schema(as = Order, example = json!(super::super::openapi::example_order()))]
pub(crate) struct OrderView<'a> {
    #[schema(value_type = String, format = Uuid)]
    id: OrderId,
    /// Where it stands.
    #[schema(value_type = Status)]
    status: &'static str,
    /// The number of its events. The ETag is this in quotes.
    #[schema(minimum = 1)]
    version: u32,
    customer_id: &'a str,
    /// Where mails go.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    email: Option<&'a str>,
    /// The customer's own name for the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reference: Option<&'a str>,
    /// ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: &'static str,
    #[schema(value_type = Vec<NewItem>, min_items = 1, max_items = 1000)]
    items: &'a [Line],
    /// In minor units.
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    total: i64,
    #[schema(value_type = String, format = DateTime)]
    placed_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    paid_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payment: Option<PaymentView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    shipped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    shipment: Option<ShipmentView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    delivered_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    cancelled_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cancellation: Option<CancellationView<'a>>,
    /// In minor units. Absent when nothing was refunded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 9007199254740991i64, nullable = false)]
    refunded_total: Option<i64>,
}

/// How it was paid.
#[derive(Serialize, ToSchema)]
#[schema(as = Payment)]
pub(crate) struct PaymentView<'a> {
    reference: &'a str,
}

/// How it was shipped.
#[derive(Serialize, ToSchema)]
#[schema(as = Shipment)]
pub(crate) struct ShipmentView<'a> {
    carrier: &'a str,
    tracking_number: &'a str,
}

/// Why it was called off.
#[derive(Serialize, ToSchema)]
#[schema(as = Cancellation)]
pub(crate) struct CancellationView<'a> {
    reason: &'a str,
}

/// Where an order stands.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "names the values for the OpenAPI document; the orders have their own type")]
pub(crate) enum Status {
    Placed,
    Paid,
    Shipped,
    Delivered,
    Cancelled,
    Refunded,
}

impl<'a> From<&'a Order> for OrderView<'a> {
    fn from(order: &'a Order) -> Self {
        let payment = order.payment.as_ref();
        let shipment = order.shipment.as_ref();
        let cancellation = order.cancellation.as_ref();
        Self {
            id: order.id,
            status: order.status.name(),
            version: order.version.0,
            customer_id: &order.customer_id,
            email: order.email.as_deref(),
            reference: order.reference.as_deref(),
            currency: order.currency.code(),
            items: &order.items,
            total: order.total.minor_units(),
            placed_at: order.placed_at,
            updated_at: order.updated_at,
            paid_at: payment.map(|payment| payment.paid_at),
            payment: payment.map(|payment| PaymentView { reference: &payment.reference }),
            shipped_at: shipment.map(|shipment| shipment.shipped_at),
            shipment: shipment.map(|shipment| ShipmentView {
                carrier: &shipment.carrier,
                tracking_number: &shipment.tracking_number,
            }),
            delivered_at: order.delivered_at,
            cancelled_at: cancellation.map(|cancellation| cancellation.cancelled_at),
            cancellation: cancellation.map(|cancellation| CancellationView { reason: &cancellation.reason }),
            refunded_total: Some(order.refunded_total.minor_units()).filter(|amount| *amount > 0),
        }
    }
}

/// A page of an order's events.
#[derive(Serialize, ToSchema)]
#[schema(as = Trail)]
pub(crate) struct TrailView<'a> {
    events: Vec<EventView<'a>>,
    /// The `after` of the next page; null on the last one.
    next_after: Option<u32>,
}

/// An event of an order.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventView<'a> {
    #[schema(value_type = String, format = Uuid)]
    id: uuid::Uuid,
    #[schema(example = "order.created")]
    r#type: &'a str,
    /// Its number within the order.
    #[schema(minimum = 1)]
    version: u32,
    /// Of which schema its data is.
    #[schema(minimum = 1)]
    schema_version: u32,
    #[schema(value_type = String, format = DateTime)]
    recorded_at: Timestamp,
    /// The same for everything that one request set off.
    correlation_id: &'a str,
    /// The command that caused it.
    causation_id: &'a str,
    /// Who caused it.
    #[schema(example = "anonymous")]
    authid: &'a str,
    /// As first written.
    #[schema(value_type = Object)]
    data: &'a RawValue,
}

impl<'a> From<&'a Trail> for TrailView<'a> {
    fn from(trail: &'a Trail) -> Self {
        Self {
            events: trail.events.iter().map(EventView::from).collect(),
            next_after: trail.next_after.map(|version| version.0),
        }
    }
}

impl<'a> From<&'a Envelope> for EventView<'a> {
    fn from(event: &'a Envelope) -> Self {
        Self {
            id: event.id.0,
            r#type: &event.event_type,
            version: event.version.0,
            schema_version: event.schema_version,
            recorded_at: event.recorded_at,
            correlation_id: &event.origin.correlation_id,
            causation_id: &event.origin.causation_id,
            authid: &event.origin.authid,
            data: &event.data,
        }
    }
}
