//! The ceiling for `cargo xtask bench`: the same HTTP, the same JSON in and out as docket, and nothing in between. It
//! keeps no order, so what it answers per second is what the machine could do if orders cost nothing.

use std::io;

use actix_web::{App, HttpResponse, HttpServer, web};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceOrder {
    customer_id: String,
    email: Option<String>,
    reference: Option<String>,
    currency: String,
    items: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sku: String,
    quantity: u32,
    unit_price: i64,
}

#[derive(Serialize)]
struct Order {
    id: Uuid,
    status: &'static str,
    version: u32,
    customer_id: String,
    email: Option<String>,
    reference: Option<String>,
    currency: String,
    items: Vec<Line>,
    total: i64,
    placed_at: &'static str,
    updated_at: &'static str,
}

impl Order {
    fn placed(id: Uuid, order: PlaceOrder) -> Self {
        Self {
            id,
            status: "placed",
            version: 1,
            total: order.items.iter().map(|line| i64::from(line.quantity) * line.unit_price).sum(),
            customer_id: order.customer_id,
            email: order.email,
            reference: order.reference,
            currency: order.currency,
            items: order.items,
            placed_at: "2026-11-23T08:00:00.000Z",
            updated_at: "2026-11-23T08:00:00.000Z",
        }
    }
}

async fn place(order: web::Json<PlaceOrder>) -> HttpResponse {
    let id = Uuid::now_v7();
    HttpResponse::Created()
        .insert_header(("Location", format!("/orders/{id}")))
        .insert_header(("ETag", "\"1\""))
        .insert_header(("X-Correlation-Id", Uuid::now_v7().to_string()))
        .json(Order::placed(id, order.into_inner()))
}

async fn read(id: web::Path<Uuid>) -> HttpResponse {
    let order = PlaceOrder {
        customer_id: "c-1".to_owned(),
        email: Some("ana@example.com".to_owned()),
        reference: Some("bench-1".to_owned()),
        currency: "EUR".to_owned(),
        items: vec![Line { sku: "A-1".to_owned(), quantity: 2, unit_price: 4995 }],
    };
    HttpResponse::Ok()
        .insert_header(("ETag", "\"1\""))
        .insert_header(("X-Correlation-Id", Uuid::now_v7().to_string()))
        .json(Order::placed(*id, order))
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    let server = HttpServer::new(|| {
        App::new().route("/orders", web::post().to(place)).route("/orders/{id}", web::get().to(read))
    })
    .bind("127.0.0.1:0")?;
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    server.run().await
}
