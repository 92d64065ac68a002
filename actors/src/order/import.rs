//! Orders of the older shape (`order.created` schema version 1), one JSON object a line. What is accepted here is stored
//! as it came and upcast whenever it is read, so whatever reading could refuse later is refused here.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::OrderId;
use super::command::{Command, Fields, ID_CHARS_MAX, LINES_MAX, QUANTITY_MAX};
use super::error::FieldError;
use super::event::{Created, EventKind, Line, SCHEMA_OF_IMPORTS, total_of};
use crate::event::upcaster;

/// Longest line, in bytes: a commit that holds it is still within what a store takes.
pub const LINE_BYTES_MAX: usize = 512 * 1024;

/// An order of the older shape, kept as the text that was imported.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Import {
    /// The JSON object, exactly.
    pub data: Box<RawValue>,
}

impl PartialEq for Import {
    fn eq(&self, other: &Self) -> bool {
        self.data.get() == other.data.get()
    }
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(rename = "orderId", borrow)]
    order_id: &'a RawValue,
}

impl Import {
    /// Which order a line is about, and the command that takes it over.
    ///
    /// # Errors
    /// Everything that is wrong with the line, in a sentence for a person.
    pub fn parse(line: &str) -> Result<(OrderId, Command), String> {
        let line = line.trim();
        if line.is_empty() {
            return Err("the line is empty".to_owned());
        }
        let data = serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
        let import = Self { data };
        let (order, _) = import.read().map_err(|errors| sentence(&errors))?;
        Ok((order, Command::Import(import)))
    }

    /// The event it stands for, in the newest schema.
    ///
    /// # Errors
    /// Every field that cannot be right, under the names of the older shape.
    pub fn upcast(&self) -> Result<Created, Vec<FieldError>> {
        self.read().map(|(_, created)| created)
    }

    fn read(&self) -> Result<(OrderId, Created), Vec<FieldError>> {
        let mut fields = Fields::default();
        let read = self.order_id().and_then(|id| Ok((id, self.created()?)));
        match read {
            Err(reason) => fields.wrong("order", reason),
            Ok((order_id, created)) => {
                fields.text("orderId", &order_id, ID_CHARS_MAX);
                check(&created, &mut fields);
                if fields.errors.is_empty() {
                    return Ok((OrderId::of_import(&order_id), created));
                }
            }
        }
        Err(fields.errors)
    }

    fn order_id(&self) -> Result<String, String> {
        let text = self.data.get();
        if text.len() > LINE_BYTES_MAX {
            return Err(format!("must be at most {LINE_BYTES_MAX} bytes"));
        }
        // Without this an array of the values in our order would pass for an object.
        if !text.starts_with('{') {
            return Err("must be a JSON object".to_owned());
        }
        let named: Named<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        upcaster::id(named.order_id).ok_or_else(|| "orderId must be a string or a whole number".to_owned())
    }

    fn created(&self) -> Result<Created, String> {
        let data = upcaster::upcast(EventKind::Created, SCHEMA_OF_IMPORTS, &self.data)?;
        serde_json::from_str(data.get()).map_err(|error| error.to_string())
    }
}

fn check(created: &Created, fields: &mut Fields) {
    fields.text("userId", &created.personal.customer_id, ID_CHARS_MAX);
    if created.items.len() > LINES_MAX {
        fields.wrong("items", format!("must have at most {LINES_MAX} lines"));
        return;
    }
    for Line { sku, quantity, .. } in &created.items {
        fields.sku(format!("the sku {sku:?}"), sku);
        fields.whole(format!("the quantity of {sku:?}"), i64::from(*quantity), 1..=QUANTITY_MAX);
    }
    let currency = created.currency;
    match total_of(&created.items) {
        None => fields.wrong("items", "are too much together"),
        Some(sum) if sum != created.total => {
            let (sum, total) = (sum.display(currency), created.total.display(currency));
            fields.wrong("total", format!("is {total}, but the lines are {sum} together"));
        }
        Some(_) => {}
    }
}

fn sentence(errors: &[FieldError]) -> String {
    let reasons: Vec<_> = errors.iter().map(|error| format!("{} {}", error.field, error.reason)).collect();
    reasons.join("; ")
}
