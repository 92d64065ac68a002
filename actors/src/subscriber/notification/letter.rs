//! The words of each mail, as text and as HTML. They come from the templates in `templates/notification/`; everything a
//! caller wrote is escaped in HTML.

use askama::Template;

use super::{News, Notice, Shown};
use crate::order::OrderId;
use crate::subscriber::Failure;

/// A mail without its headers.
pub(super) struct Letter {
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
}

/// What the templates are filled with.
struct Words {
    subject: String,
    heading: &'static str,
    lead: String,
    facts: Vec<(&'static str, String)>,
    lines: Vec<WrittenLine>,
    more_lines: usize,
    total: String,
    closing: &'static str,
    order: OrderId,
}

struct WrittenLine {
    sku: String,
    quantity: u32,
    unit_price: String,
    sum: String,
}

#[derive(Template)]
#[template(path = "notification/mail.txt")]
struct Text<'a>(&'a Words);

#[derive(Template)]
#[template(path = "notification/mail.html")]
struct Html<'a>(&'a Words);

impl Notice {
    /// The mail that tells this.
    pub(super) fn letter(&self, order: OrderId) -> Result<Letter, Failure> {
        let words = self.words(order);
        let failed = |error: askama::Error| Failure::permanent(format!("the mail cannot be written: {error}"));
        Ok(Letter {
            text: Text(&words).render().map_err(failed)?,
            html: Html(&words).render().map_err(failed)?,
            subject: words.subject,
        })
    }

    fn words(&self, order: OrderId) -> Words {
        let mut words = Words {
            subject: String::new(),
            heading: "",
            lead: String::new(),
            facts: Vec::new(),
            lines: Vec::new(),
            more_lines: 0,
            total: String::new(),
            closing: "",
            order,
        };
        let named = self.order_named();
        self.tell(&mut words, &named);
        if let Some(reference) = &self.reference {
            words.facts.push(("Your reference", reference.clone()));
        }
        words.subject = words.subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        words
    }

    fn tell(&self, words: &mut Words, named: &str) {
        let currency = self.currency;
        match &self.news {
            News::Created { lines } => {
                words.subject = format!("We have received {named}");
                words.heading = "Thank you for your order";
                words.lead = "We have received your order. As soon as it is paid we prepare it for you.".to_owned();
                words.closing = "We will write to you when something happens to it.";
                self.show(words, lines);
            }
            News::Paid { amount, payment_reference, lines } => {
                words.subject = format!("We have received your payment for {named}");
                words.heading = "Thank you for your payment";
                words.lead = format!("We have received {}. Your order is being prepared.", amount.display(currency));
                words.facts.push(("Payment", payment_reference.clone()));
                words.closing = "We will write to you as soon as it is on its way.";
                self.show(words, lines);
            }
            News::Shipped { carrier, tracking_number, lines } => {
                words.subject = format!("On its way: {named}");
                words.heading = "Your order is on its way";
                words.lead = format!("We have handed your order to {carrier}.");
                words.facts.push(("Carrier", carrier.clone()));
                words.facts.push(("Tracking number", tracking_number.clone()));
                words.closing = "We hope it reaches you soon.";
                self.show(words, lines);
            }
            News::Delivered => {
                words.subject = format!("Delivered: {named}");
                words.heading = "Your order has arrived";
                words.lead = "Your order has been delivered.".to_owned();
                words.closing = "We hope you enjoy it. Thank you for your order.";
            }
            News::Cancelled { reason, to_refund } => {
                words.subject = format!("Cancelled: {named}");
                words.heading = "Your order has been cancelled";
                words.lead = match to_refund.minor_units() {
                    0 => "Your order has been cancelled. There is nothing left for you to do or to pay.".to_owned(),
                    _ => format!(
                        "Your order has been cancelled. We give you back what you paid, {}.",
                        to_refund.display(currency)
                    ),
                };
                words.facts.push(("Reason", reason.clone()));
                words.closing = "If you did not expect this, please tell us.";
            }
            News::Refunded { amount, reason, cancelled, left } => {
                words.subject = format!("Refund of {} for {named}", amount.display(currency));
                words.heading = "We have sent you a refund";
                let order = if *cancelled { "your cancelled order" } else { "your order" };
                words.lead = format!("We have refunded {} for {order}.", amount.display(currency));
                words.facts.push(("Reason", reason.clone()));
                if left.minor_units() > 0 {
                    words.facts.push(("Not refunded", left.display(currency).to_string()));
                }
                words.closing = "It may take some days until the money is with you.";
            }
        }
    }

    fn order_named(&self) -> String {
        self.reference.as_ref().map_or_else(|| "your order".to_owned(), |reference| format!("your order {reference}"))
    }

    fn show(&self, words: &mut Words, shown: &Shown) {
        let currency = self.currency;
        words.lines = shown
            .lines
            .iter()
            .map(|line| WrittenLine {
                sku: line.sku.clone(),
                quantity: line.quantity,
                unit_price: line.unit_price.display(currency).to_string(),
                sum: line.unit_price.checked_mul(line.quantity).unwrap_or_default().display(currency).to_string(),
            })
            .collect();
        words.more_lines = shown.more;
        words.total = shown.total.display(currency).to_string();
    }
}
