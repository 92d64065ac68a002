//! What the addresses of servers have in common: a user and a password may stand in them, and no text shows the password.

use std::fmt::Display;

use serde::Serializer;

/// In the place of a password.
pub(crate) const HIDDEN: &str = "***";

/// For those who write characters into it that end it.
pub(crate) const MUST_BE_ENCODED: &str = "its user or password has characters that must be percent-encoded (@ is %40, \
                                          : is %3A, / is %2F, ? is %3F, # is %23, % is %25)";

/// What stands before the host, also where it is written wrongly: up to the last `@`.
pub(crate) fn login(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("://")?;
    rest.rsplit_once('@').map(|(login, _)| login)
}

/// User and password of it, as they are written. `None` without a password.
pub(crate) fn credentials(address: &str) -> Option<(&str, &str)> {
    login(address)?.split_once(':').filter(|(_, password)| !password.is_empty())
}

/// Writes an address as it is shown, or that there is none.
pub(crate) fn serialize<S: Serializer>(address: &impl Display, is_empty: bool, to: S) -> Result<S::Ok, S::Error> {
    if is_empty { to.serialize_str("") } else { to.collect_str(address) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::SmtpUrl;
    use crate::{mongo, rabbit};

    #[test]
    fn user_and_password_end_at_the_last_at_sign() {
        assert_eq!(credentials("amqp://ana:a@b/c@mq1:5672"), Some(("ana", "a@b/c")));
        assert_eq!((login("amqp://ana@mq1"), credentials("amqp://ana@mq1")), (Some("ana"), None));
        assert_eq!(
            (credentials("amqp://ana:@mq1"), credentials("amqp://mq1"), credentials("s3cret")),
            (None, None, None)
        );
    }

    #[test]
    fn no_address_is_written_with_its_password() {
        let json = |address: &dyn Fn(&str) -> serde_json::Result<String>, text| address(text).expect("JSON");
        let smtp = |text: &str| serde_json::to_string(&SmtpUrl::new(text));
        let amqp = |text: &str| serde_json::to_string(&rabbit::Uri::new(text));
        let mongodb = |text: &str| serde_json::to_string(&mongo::Uri::new(text));
        assert_eq!(json(&smtp, "smtp://u:s3cret@mail"), "\"smtp://u:***@mail:25\"");
        assert_eq!(json(&amqp, "amqp://u:s3cret@mq1"), "\"amqp://u:***@mq1:5672\"");
        assert_eq!(json(&mongodb, "mongodb://u:s3cret@db1"), "\"mongodb://u:***@db1:27017\"");
        for address in [&smtp as &dyn Fn(&str) -> _, &amqp, &mongodb] {
            assert_eq!(json(address, ""), "\"\"");
            assert!(!json(address, "s3cret:@").contains("s3cret"));
        }
    }
}
