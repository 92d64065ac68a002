//! `rabbitmq.uri`: where the broker is, and who asks. However it is shown, its password is not.
//!
//! What the address can say and docket decides by itself (heartbeat, deadlines, frames) is refused with the key that
//! decides it: taken silently, somebody would believe that it holds.

use std::fmt;

use lapin::uri::AMQPUri;
use serde::{Deserialize, Serialize, Serializer};

use crate::address::{self, HIDDEN, MUST_BE_ENCODED};

/// An address, perhaps with a user and a password. Shown, and serialised, as scheme, user, host and virtual host.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Uri(String);

impl Uri {
    /// From its text, which may be wrong ([`check`](Self::check)).
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text, with the password: for the driver alone.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether docket can work with it. Nothing is asked of any broker.
    ///
    /// # Errors
    /// What is wrong and what would be right, without the password.
    pub fn check(&self) -> Result<(), String> {
        self.parse().map(drop)
    }

    /// Its parts, for the driver alone.
    ///
    /// # Errors
    /// What is wrong and what would be right, without the password.
    pub(super) fn parse(&self) -> Result<AMQPUri, String> {
        let Some((_, rest)) = self.0.split_once("://").filter(|(scheme, _)| SCHEMES.contains(scheme)) else {
            return Err(LOOKS_LIKE.to_owned());
        };
        let mut uri: AMQPUri = self.0.parse().map_err(|error: String| self.unreadable(&error))?;
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        if let Some(option) = query.split(['&', '=']).next().filter(|option| !option.is_empty()) {
            return Err(format!("leave {option} out of it: {}", decided_by(option)));
        }
        let (authority, vhost) = address.split_once('/').map_or((address, None), |(a, vhost)| (a, Some(vhost)));
        uri.authority.host = host(authority)?.to_owned();
        match vhost {
            Some("") => Err(EMPTY_VHOST.to_owned()),
            Some(vhost) if vhost.contains('/') => {
                Err("a / in the name of its virtual host must be written as %2f".to_owned())
            }
            _ => Ok(uri),
        }
    }

    fn unreadable(&self, error: &str) -> String {
        let Some((_, password)) = address::credentials(&self.0) else { return format!("{error}; {LOOKS_LIKE}") };
        if password.chars().any(|c| "/?#[]@".contains(c)) {
            return MUST_BE_ENCODED.to_owned();
        }
        format!("{error}; {LOOKS_LIKE}").replace(password, HIDDEN)
    }
}

const SCHEMES: [&str; 2] = ["amqp", "amqps"];
const LOOKS_LIKE: &str =
    "it looks like amqp://USER:PASSWORD@HOST:5672/VHOST, or amqps://… for TLS; without /VHOST it is the virtual host /";
const EMPTY_VHOST: &str = "it names a virtual host with an empty name: leave its last / out, or write /%2f";

/// The host in `user:password@host:port`. The driver's parser takes every address of IPv6 for localhost.
fn host(authority: &str) -> Result<&str, String> {
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let host = match place.strip_prefix('[').and_then(|place| place.split_once(']')) {
        Some((host, _)) => host,
        None => place.split(':').next().unwrap_or_default(),
    };
    if host.is_empty() { Err(format!("it names no host; {LOOKS_LIKE}")) } else { Ok(host) }
}

fn decided_by(option: &str) -> &'static str {
    match option {
        "heartbeat" => "rabbitmq.heartbeat_s says it",
        "connection_timeout" => "rabbitmq.answer_timeout_ms is the deadline",
        "cacertfile" | "verify" => "docket trusts what this machine trusts; SSL_CERT_FILE names other authorities",
        _ => "docket decides it, or does not know it",
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(uri) = self.parse() else { return f.write_str("an address that cannot be read") };
        write!(f, "{}://", uri.scheme)?;
        if self.0.contains('@') {
            write!(f, "{}:{HIDDEN}@", uri.authority.userinfo.username)?;
        }
        let host = &uri.authority.host;
        if host.contains(':') {
            write!(f, "[{host}]")?
        } else {
            f.write_str(host)?
        }
        write!(f, ":{}", uri.authority.port)?;
        if uri.vhost == "/" { Ok(()) } else { write!(f, "/{}", uri.vhost.replace('/', "%2f")) }
    }
}

impl Serialize for Uri {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        address::serialize(self, self.is_empty(), to)
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(uri: &str) -> String {
        Uri::new(uri).check().expect_err("a wrong address")
    }

    #[test]
    fn it_is_shown_without_its_password() {
        let uri = Uri::new("amqp://docket:s3cret@mq1:5673/shop");
        assert_eq!(uri.to_string(), "amqp://docket:***@mq1:5673/shop");
        assert!(!format!("{uri:?}").contains("s3cret"));
        assert_eq!(uri.expose(), "amqp://docket:s3cret@mq1:5673/shop");
        assert_eq!(Uri::new("amqps://mq1").to_string(), "amqps://mq1:5671");
        assert_eq!(Uri::new("amqp://u:s3cret@mq1/%2fshop").to_string(), "amqp://u:***@mq1:5672/%2fshop");
    }

    #[test]
    fn an_address_of_the_newer_internet_is_not_taken_for_this_machine() {
        let uri = Uri::new("amqp://u:p@[2001:db8::1]:5673/shop").parse().expect("right");
        assert_eq!((uri.authority.host.as_str(), uri.authority.port), ("2001:db8::1", 5673));
        assert_eq!(Uri::new("amqp://[::1]").to_string(), "amqp://[::1]:5672");
    }

    #[test]
    fn the_virtual_host_is_what_is_meant() {
        let vhost = |uri: &str| Uri::new(uri).parse().expect("right").vhost;
        assert_eq!(vhost("amqp://mq1"), "/");
        assert_eq!(vhost("amqp://mq1/%2f"), "/");
        assert_eq!(vhost("amqp://mq1/my%20shop"), "my shop");
        assert!(refused("amqp://mq1/").contains("/%2f"));
        assert!(refused("amqp://mq1/a/b").contains("%2f"));
    }

    #[test]
    fn a_wrong_one_is_refused_without_its_password() {
        for wrong in [
            "amqp://docket:s3cret@mq1:port",
            "amqp://docket:s3cret@mq1/",
            "amqp://docket:s3cret@mq1?heartbeat=3",
            "amqp://docket:a/s3cret@mq1",
            "amqp://docket:a#s3cret@mq1",
            "amqp://docket:a?s3cret@mq1",
            "amqp://docket:s3cret@",
            "amqp:docket:s3cret@mq1",
            "http://docket:s3cret@mq1",
            "s3cret",
        ] {
            let said = refused(wrong);
            assert!(!said.contains("s3cret") && said.len() > 20, "{wrong}: {said}");
            assert!(!Uri::new(wrong).to_string().contains("s3cret"), "{wrong}");
        }
        assert!(refused("amqp://docket:a/s3cret@mq1").contains("%2F"));
    }

    #[test]
    fn what_docket_decides_is_refused_with_what_decides_it() {
        for (option, word) in [
            ("heartbeat=3", "rabbitmq.heartbeat_s"),
            ("connection_timeout=3", "rabbitmq.answer_timeout_ms"),
            ("cacertfile=/x", "SSL_CERT_FILE"),
            ("frame_max=3", "docket decides it"),
        ] {
            let said = refused(&format!("amqp://mq1/shop?{option}"));
            assert!(said.contains(word) && said.contains(option.split_once('=').expect("an option").0), "{said}");
        }
    }
}
