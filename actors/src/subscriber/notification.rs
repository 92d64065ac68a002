//! The subscriber `notification`: tells customers by mail when their order is created, paid, shipped, delivered,
//! cancelled or refunded.
//!
//! What the mails need it keeps in a document of its own an order; it never reads the order service. A mail is recorded
//! as facts and written when it is sent, so a mended template holds for what still waits. An order without an address
//! gets no mail, and an imported one none for having been placed long ago: recorded as skipped, and why.

mod letter;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Cause, Documents, Event, Failure, Outcome, OutcomeKind, Subscriber};
use crate::event::EventId;
use crate::inbox::DocumentKey;
use crate::mailer::{Mail, MailError, Mailer};
use crate::money::{Amount, Currency};
use crate::order::OrderEvent;
use crate::order::event::Line;

/// Lines of an order that a mail shows; how many there are besides is said below them.
const LINES_SHOWN_MAX: usize = 50;
/// The first schema version of `order.created` that docket wrote itself: those before were imported.
const CREATED_BY_DOCKET: u32 = 2;
const ORDERS: &str = "orders";

/// The subscriber.
pub struct Notification {
    mailer: Arc<dyn Mailer>,
}

impl Notification {
    /// One that sends through that mailer.
    pub fn new(mailer: Arc<dyn Mailer>) -> Self {
        Self { mailer }
    }
}

/// What is known of an order: as much as the mails need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    currency: Currency,
    lines: Vec<Line>,
    total: Amount,
    paid: Amount,
    refunded: Amount,
    cancelled: bool,
    imported: bool,
}

/// A mail to send, as facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    currency: Currency,
    imported: bool,
    news: News,
}

/// What a mail is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum News {
    Created { lines: Shown },
    Paid { amount: Amount, payment_reference: String, lines: Shown },
    Shipped { carrier: String, tracking_number: String, lines: Shown },
    Delivered,
    Cancelled { reason: String, to_refund: Amount },
    Refunded { amount: Amount, reason: String, cancelled: bool, left: Amount },
}

/// The lines that a mail shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Shown {
    lines: Vec<Line>,
    more: usize,
    total: Amount,
}

#[async_trait]
impl Subscriber for Notification {
    const NAME: &'static str = "notification";

    type Effect = Notice;

    fn reads(&self, event: &Event<'_>) -> Vec<DocumentKey> {
        vec![DocumentKey { collection: ORDERS.into(), id: event.order().to_string() }]
    }

    async fn handle(&self, event: &Event<'_>, documents: &mut Documents<'_>) -> Result<Vec<Notice>, Failure> {
        let before: Option<Known> = documents.get(ORDERS, event.order()).await?;
        let (known, news) = learn(before, event)?;
        documents.put(ORDERS, event.order(), &known)?;
        let notice = |news| Notice {
            to: known.email.clone(),
            reference: known.reference.clone(),
            currency: known.currency,
            imported: known.imported,
            news,
        };
        Ok(news.map(notice).into_iter().collect())
    }

    async fn perform(&self, notice: &Notice, cause: &Cause) -> Result<Outcome, Failure> {
        let Some(to) = &notice.to else {
            let why =
                if notice.imported && matches!(notice.news, News::Created { .. }) { "imported" } else { "no address" };
            return Ok(Outcome { kind: OutcomeKind::Skipped, detail: why.to_owned() });
        };
        let letter = notice.letter(cause.order)?;
        let mail = Mail {
            message_id: message_id(cause.event(), to),
            to: to.clone(),
            subject: letter.subject,
            date: cause.recorded_at,
            text: letter.text,
            html: letter.html,
            correlation_id: cause.origin.correlation_id.clone(),
            traceparent: cause.origin.traceparent.clone(),
        };
        match self.mailer.send(&mail).await {
            Ok(sent) => Ok(Outcome { kind: OutcomeKind::Performed, detail: sent.message_id }),
            Err(MailError::Undeliverable(why)) => Ok(Outcome { kind: OutcomeKind::Undeliverable, detail: why }),
            Err(MailError::Transient(why)) => Err(Failure::transient(why)),
            Err(MailError::DependencyDown(why)) => Err(Failure::dependency_down(why)),
        }
    }
}

/// What is known after the event, and what there is to tell.
fn learn(before: Option<Known>, event: &Event<'_>) -> Result<(Known, Option<News>), Failure> {
    if let OrderEvent::Created(created) = event.event {
        let known = Known {
            email: created.personal.email.clone(),
            reference: created.reference.clone(),
            currency: created.currency,
            lines: created.items.clone(),
            total: created.total,
            paid: Amount::ZERO,
            refunded: Amount::ZERO,
            cancelled: false,
            imported: event.envelope.schema_version < CREATED_BY_DOCKET,
        };
        let news = News::Created { lines: known.shown() };
        return Ok((known, Some(news)));
    }
    let mut known = before.ok_or_else(|| Failure::permanent("nothing is known of the order"))?;
    let news = known.change(event.event)?;
    Ok((known, news))
}

impl Known {
    fn change(&mut self, event: &OrderEvent) -> Result<Option<News>, Failure> {
        Ok(match event {
            OrderEvent::Created(_) => return Err(Failure::permanent("the order was created before")),
            OrderEvent::ItemAdded(line) => {
                self.add(line)?;
                None
            }
            OrderEvent::ItemRemoved(removed) => {
                self.lines.retain(|line| line.sku != removed.sku);
                self.total = sum(&self.lines)?;
                None
            }
            OrderEvent::Paid(paid) => {
                self.paid = paid.amount;
                let payment_reference = paid.payment_reference.clone();
                Some(News::Paid { amount: paid.amount, payment_reference, lines: self.shown() })
            }
            OrderEvent::Shipped(shipped) => Some(News::Shipped {
                carrier: shipped.carrier.clone(),
                tracking_number: shipped.personal.tracking_number.clone(),
                lines: self.shown(),
            }),
            OrderEvent::Delivered(_) => Some(News::Delivered),
            OrderEvent::Cancelled(cancelled) => {
                self.cancelled = true;
                let to_refund = self.paid.checked_sub(self.refunded).unwrap_or_default();
                Some(News::Cancelled { reason: cancelled.reason.clone(), to_refund })
            }
            OrderEvent::Refunded(refunded) => {
                self.refunded = self.refunded.checked_add(refunded.amount).ok_or_else(too_large)?;
                Some(News::Refunded {
                    amount: refunded.amount,
                    reason: refunded.reason.clone(),
                    cancelled: self.cancelled,
                    left: self.paid.checked_sub(self.refunded).unwrap_or_default(),
                })
            }
        })
    }

    /// Quantities of the same article add up.
    fn add(&mut self, added: &Line) -> Result<(), Failure> {
        match self.lines.iter_mut().find(|line| line.sku == added.sku) {
            Some(line) => line.quantity = line.quantity.checked_add(added.quantity).ok_or_else(too_large)?,
            None => self.lines.push(added.clone()),
        }
        self.total = sum(&self.lines)?;
        Ok(())
    }

    fn shown(&self) -> Shown {
        let lines: Vec<_> = self.lines.iter().take(LINES_SHOWN_MAX).cloned().collect();
        Shown { more: self.lines.len() - lines.len(), lines, total: self.total }
    }
}

fn sum(lines: &[Line]) -> Result<Amount, Failure> {
    let sum =
        lines.iter().try_fold(Amount::ZERO, |sum, line| sum.checked_add(line.unit_price.checked_mul(line.quantity)?));
    sum.ok_or_else(too_large)
}

fn too_large() -> Failure {
    Failure::permanent("the order's amounts are too large")
}

/// The same for the same event and reader, so that a receiver recognises a mail that is sent again.
fn message_id(event: EventId, to: &str) -> String {
    let digest = Sha256::digest(to.as_bytes());
    let reader: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{event}.{reader}")
}

#[cfg(test)]
mod tests;
