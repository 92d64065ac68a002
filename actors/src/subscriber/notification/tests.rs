//! The mails word by word, as golden files in `tests/fixtures/mails/` (written anew with `UPDATE_GOLDEN=1`), and what
//! becomes of those that cannot be sent.

use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::*;
use crate::clock::Timestamp;
use crate::commit::Origin;
use crate::event::Envelope;
use crate::inbox::{EffectId, Generation};
use crate::mailer::Sent;
use crate::order::event::{
    Cancelled, Created, Delivered, ItemRemoved, Paid, Personal, Refunded, Shipped, ShippedPersonal,
};
use crate::order::{OrderId, Version};
use crate::subscriber::overlay::Overlay;
use crate::testing::inbox::MemoryInbox;

/// Keeps what it is given, or fails as it was told to.
#[derive(Default)]
struct Letterbox {
    mails: Mutex<Vec<Mail>>,
    fails: Mutex<Option<MailError>>,
}

#[async_trait]
impl Mailer for Letterbox {
    async fn send(&self, mail: &Mail) -> Result<Sent, MailError> {
        if let Some(error) = self.fails.lock().expect("a lock").clone() {
            return Err(error);
        }
        self.mails.lock().expect("a lock").push(mail.clone());
        Ok(Sent { message_id: format!("<{}@test>", mail.message_id) })
    }
}

struct Customer {
    letterbox: Arc<Letterbox>,
    notification: Notification,
    overlay: Overlay,
    version: u32,
}

impl Customer {
    fn new() -> Self {
        let letterbox = Arc::new(Letterbox::default());
        Self {
            notification: Notification::new(letterbox.clone()),
            letterbox,
            overlay: Overlay::new(Arc::new(MemoryInbox::default()), Generation::default()),
            version: 0,
        }
    }

    fn order() -> OrderId {
        OrderId::from(Uuid::from_u128(0x0193_9c2e_0000_7000_8000_0000_0000_0001))
    }

    async fn hears(&mut self, event: OrderEvent) -> Vec<Outcome> {
        let schema = event.kind().newest_schema();
        self.hears_in_schema(event, schema).await
    }

    async fn hears_in_schema(&mut self, event: OrderEvent, schema_version: u32) -> Vec<Outcome> {
        self.version += 1;
        let envelope = Envelope {
            id: EventId(Uuid::from_u128(u128::from(self.version))),
            order: Self::order(),
            version: Version(self.version),
            event_type: event.event_type().to_owned(),
            schema_version,
            recorded_at: "2026-11-23T08:00:00.000Z".parse::<Timestamp>().expect("a time"),
            origin: Origin::anonymous("correlation-1".to_owned(), Some("00-1-2-01".to_owned())),
            data: RawValue::NULL.to_owned(),
        };
        let mut layer = self.overlay.layer();
        let event = Event { envelope: &envelope, event: &event };
        let notices = self.notification.handle(&event, &mut layer).await.expect("handled");
        let changes = layer.into_changes();
        self.overlay.keep(changes);
        let mut outcomes = Vec::new();
        for (index, notice) in (0..).zip(&notices) {
            let cause = Cause {
                effect: EffectId { event: envelope.id, index },
                order: envelope.order,
                version: envelope.version,
                recorded_at: envelope.recorded_at,
                origin: envelope.origin.clone(),
            };
            outcomes.push(self.notification.perform(notice, &cause).await.expect("performed"));
        }
        outcomes
    }

    fn mail(&self) -> Mail {
        self.letterbox.mails.lock().expect("a lock").last().expect("a mail").clone()
    }
}

fn amount(minor_units: i64) -> Amount {
    Amount::try_from(minor_units).expect("an amount")
}

fn line(sku: &str, quantity: u32, unit_price: i64) -> Line {
    Line { sku: sku.to_owned(), quantity, unit_price: amount(unit_price) }
}

fn created(currency: &str, email: Option<&str>, items: Vec<Line>) -> OrderEvent {
    OrderEvent::Created(Created {
        personal: Personal { customer_id: "c-1".to_owned(), email: email.map(str::to_owned) },
        reference: Some("web-77".to_owned()),
        currency: currency.try_into().expect("a currency"),
        total: sum(&items).expect("a sum"),
        items,
    })
}

fn in_euros() -> OrderEvent {
    created("EUR", Some("ana@example.com"), vec![line("A-1", 2, 4995), line("B<b>&amp;", 1, 1_234_500)])
}

fn paid(minor_units: i64) -> OrderEvent {
    OrderEvent::Paid(Paid { amount: amount(minor_units), payment_reference: "pay-1".to_owned() })
}

#[track_caller]
fn assert_golden(name: &str, mail: &Mail) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/mails");
    let text = format!("Subject: {}\n\n{}", mail.subject, mail.text);
    for (file, written) in [(format!("{name}.txt"), &text), (format!("{name}.html"), &mail.html)] {
        let path = folder.join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&folder).expect("the folder");
            std::fs::write(&path, written).expect("the golden file");
        }
        let golden = std::fs::read_to_string(&path).expect("the golden file");
        assert_eq!(*written, golden, "{}", path.display());
    }
}

#[tokio::test]
async fn an_orders_life_in_mails() {
    let mut ana = Customer::new();
    ana.hears(in_euros()).await;
    assert_golden("created", &ana.mail());
    ana.hears(paid(1_244_490)).await;
    assert_golden("paid", &ana.mail());
    let personal = ShippedPersonal { tracking_number: "JD0146".to_owned() };
    let shipped = Shipped { personal, carrier: "DHL".to_owned() };
    ana.hears(OrderEvent::Shipped(shipped)).await;
    assert_golden("shipped", &ana.mail());
    ana.hears(OrderEvent::Delivered(Delivered {})).await;
    assert_golden("delivered", &ana.mail());
    ana.hears(OrderEvent::Refunded(Refunded { amount: amount(4995), reason: "damaged".to_owned() })).await;
    assert_golden("refunded", &ana.mail());
}

#[tokio::test]
async fn a_cancelled_order_says_whether_money_comes_back() {
    let mut ana = Customer::new();
    ana.hears(created("JPY", Some("ana@example.com"), vec![line("A-1", 1, 1250)])).await;
    assert_golden("created-in-yen", &ana.mail());
    ana.hears(paid(1250)).await;
    ana.hears(OrderEvent::Cancelled(Cancelled { reason: "too late".to_owned() })).await;
    assert_golden("cancelled-after-payment", &ana.mail());
    ana.hears(OrderEvent::Refunded(Refunded { amount: amount(1250), reason: "too late".to_owned() })).await;
    assert_golden("refunded-after-cancellation", &ana.mail());

    let mut ben = Customer::new();
    ben.hears(in_euros()).await;
    ben.hears(OrderEvent::Cancelled(Cancelled { reason: "changed my mind".to_owned() })).await;
    assert_golden("cancelled", &ben.mail());
}

#[tokio::test]
async fn a_mail_shows_the_lines_as_they_are_now() {
    let mut ana = Customer::new();
    ana.hears(in_euros()).await;
    assert!(ana.hears(OrderEvent::ItemAdded(line("A-1", 3, 4995))).await.is_empty());
    ana.hears(OrderEvent::ItemAdded(line("C-1", 1, 100))).await;
    ana.hears(OrderEvent::ItemRemoved(ItemRemoved { sku: "B<b>&amp;".to_owned() })).await;
    ana.hears(paid(25_075)).await;
    let text = ana.mail().text;
    assert!(text.contains("5 x A-1 at 49.95 EUR = 249.75 EUR"), "{text}");
    assert!(text.contains("Total: 250.75 EUR") && !text.contains("B<b>"), "{text}");
}

#[tokio::test]
async fn a_long_order_is_cut_and_says_so() {
    let mut ana = Customer::new();
    let items = (0..60).map(|index| line(&format!("A-{index}"), 1, 100)).collect();
    ana.hears(created("EUR", Some("ana@example.com"), items)).await;
    let mail = ana.mail();
    assert!(mail.text.contains("and 10 more") && mail.html.contains("and 10 more"));
    assert!(mail.text.contains("Total: 60.00 EUR"));
}

#[tokio::test]
async fn nobody_to_write_to_is_recorded() {
    let skipped = |why: &str| vec![Outcome { kind: OutcomeKind::Skipped, detail: why.to_owned() }];
    let mut nobody = Customer::new();
    assert_eq!(nobody.hears(created("EUR", None, vec![line("A-1", 1, 100)])).await, skipped("no address"));
    let mut imported = Customer::new();
    let old = created("EUR", None, vec![line("legacy", 1, 100)]);
    assert_eq!(imported.hears_in_schema(old, 1).await, skipped("imported"));
    assert_eq!(imported.hears(paid(100)).await, skipped("no address"));
}

#[tokio::test]
async fn a_refused_address_is_an_outcome_and_not_a_failure() {
    let mut ana = Customer::new();
    *ana.letterbox.fails.lock().expect("a lock") = Some(MailError::Undeliverable("550".to_owned()));
    let outcomes = ana.hears(in_euros()).await;
    assert_eq!(outcomes, [Outcome { kind: OutcomeKind::Undeliverable, detail: "550".to_owned() }]);
}

#[tokio::test]
async fn a_mail_is_the_same_whenever_it_is_sent_and_holds_no_line_of_its_own() {
    let mut ana = Customer::new();
    let OrderEvent::Created(mut order) = in_euros() else { unreachable!("a creation") };
    order.reference = Some("web\r\nBcc: all@example.com".to_owned());
    ana.hears(OrderEvent::Created(order)).await;
    let mail = ana.mail();
    assert_eq!(mail.subject, "We have received your order web  Bcc: all@example.com");
    assert_eq!(mail.message_id, message_id(EventId(Uuid::from_u128(1)), "ana@example.com"));
    assert_ne!(mail.message_id, message_id(EventId(Uuid::from_u128(1)), "ben@example.com"));
    assert_eq!((mail.correlation_id.as_str(), mail.traceparent.as_deref()), ("correlation-1", Some("00-1-2-01")));
    assert!(mail.html.contains("B&#60;b&#62;&#38;amp;"), "{}", mail.html);
}
