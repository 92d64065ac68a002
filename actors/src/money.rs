//! Money: whole minor units and an ISO 4217 currency. No floating point, no silent overflow.

use std::borrow::Cow;
use std::fmt;

use iso_currency::Currency as Iso;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The largest amount, 2^53−1: the largest integer that every JSON reader keeps exact (RFC 8259 §6).
pub const AMOUNT_MAX: i64 = (1 << 53) - 1;

/// An amount in minor units (cents for EUR, yen for JPY), never negative, at most [`AMOUNT_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Amount(i64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The amount in minor units.
    pub fn minor_units(self) -> i64 {
        self.0
    }

    /// The sum; `None` beyond [`AMOUNT_MAX`].
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(|sum| Self::try_from(sum).ok())
    }

    /// The difference; `None` below zero.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).and_then(|rest| Self::try_from(rest).ok())
    }

    /// This amount `quantity` times; `None` beyond [`AMOUNT_MAX`].
    pub fn checked_mul(self, quantity: u32) -> Option<Self> {
        self.0.checked_mul(i64::from(quantity)).and_then(|product| Self::try_from(product).ok())
    }

    /// As a person writes it: `12.50 EUR`, `1,250 JPY`.
    pub fn display(self, currency: Currency) -> impl fmt::Display {
        Written { amount: self, currency }
    }
}

/// The number is negative or larger than 2^53−1.
#[derive(Debug, thiserror::Error)]
#[error("an amount is a whole number of minor units from 0 to 9007199254740991")]
pub struct NotAnAmount;

impl TryFrom<i64> for Amount {
    type Error = NotAnAmount;

    fn try_from(minor_units: i64) -> Result<Self, NotAnAmount> {
        (0..=AMOUNT_MAX).contains(&minor_units).then_some(Self(minor_units)).ok_or(NotAnAmount)
    }
}

impl From<Amount> for i64 {
    fn from(amount: Amount) -> i64 {
        amount.0
    }
}

/// A currency of ISO 4217 by its three letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub struct Currency(Iso);

impl Currency {
    /// The euro, the currency of every order of the older shape.
    pub const EUR: Self = Self(Iso::EUR);

    /// Its three letters.
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// How many digits of an amount are behind the point: 2 for EUR, 0 for JPY, 3 for BHD. Units without one (gold,
    /// say) count whole.
    pub fn minor_digits(self) -> u32 {
        u32::from(self.0.exponent().unwrap_or(0))
    }
}

/// The text is not the code of a currency.
#[derive(Debug, thiserror::Error)]
#[error("not a currency code of ISO 4217 such as EUR")]
pub struct NotACurrency;

impl TryFrom<&str> for Currency {
    type Error = NotACurrency;

    fn try_from(code: &str) -> Result<Self, NotACurrency> {
        Iso::from_code(code).map(Self).ok_or(NotACurrency)
    }
}

impl TryFrom<String> for Currency {
    type Error = NotACurrency;

    fn try_from(code: String) -> Result<Self, NotACurrency> {
        code.as_str().try_into()
    }
}

impl From<Currency> for &'static str {
    fn from(currency: Currency) -> &'static str {
        currency.code()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Amount")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 0, "maximum": AMOUNT_MAX,
            "description": "In minor units of the order's currency: 1250 is 12.50 EUR."})
    }
}

impl JsonSchema for Currency {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Currency")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217."})
    }
}

struct Written {
    amount: Amount,
    currency: Currency,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.currency.minor_digits();
        let unit = 10_i64.pow(digits);
        let whole = (self.amount.0 / unit).to_string();
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        if digits > 0 {
            write!(f, ".{:0width$}", self.amount.0 % unit, width = digits as usize)?;
        }
        write!(f, " {}", self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(minor_units: i64, code: &str) -> String {
        let amount = Amount::try_from(minor_units).expect("an amount");
        amount.display(Currency::try_from(code).expect("a currency")).to_string()
    }

    #[test]
    fn is_written_as_a_person_writes_it() {
        assert_eq!(written(1250, "EUR"), "12.50 EUR");
        assert_eq!(written(1250, "JPY"), "1,250 JPY");
        assert_eq!(written(123_456_789, "EUR"), "1,234,567.89 EUR");
        assert_eq!(written(5, "BHD"), "0.005 BHD");
        assert_eq!(written(0, "EUR"), "0.00 EUR");
    }

    #[test]
    fn never_leaves_its_range() {
        let max = Amount::try_from(AMOUNT_MAX).expect("the largest");
        assert_eq!(max.checked_add(Amount(1)), None);
        assert_eq!(max.checked_mul(2), None);
        assert_eq!(Amount::ZERO.checked_sub(Amount(1)), None);
        assert!(Amount::try_from(-1).is_err());
        assert!(Amount::try_from(AMOUNT_MAX + 1).is_err());
    }
}
