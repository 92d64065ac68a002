//! `notification.smtp_url`: where the mail server is, who gives it mails, and how that is encrypted. However it is shown,
//! its password is not.
//!
//! Written as lettre writes it: `scheme://user:password@host:port/ehlo-name?tls=…`.

use std::fmt;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize, Serializer};
use url::{Host, Url};

use crate::address::{self, HIDDEN, MUST_BE_ENCODED};

/// An address, perhaps with a user and a password. Shown, and serialised, as scheme, user, host and port.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SmtpUrl(String);

/// What an address says.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) encryption: Encryption,
    /// User and password, decoded.
    pub(super) login: Option<(String, String)>,
    /// What docket calls itself, when it is not the name of this machine.
    pub(super) hello: Option<String>,
}

/// When a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// From its first byte: `smtps://`.
    Always,
    /// By STARTTLS, or no mail is given: `?tls=required`.
    Required,
    /// By STARTTLS where the server offers it: `smtp://`, or `?tls=opportunistic`. A password is not sent without it.
    Offered,
    /// Never: `?tls=none`.
    Never,
}

impl Encryption {
    /// The port of a server with which that is usual.
    fn usual_port(self) -> u16 {
        match self {
            Self::Always => 465,
            Self::Required => 587,
            Self::Offered | Self::Never => 25,
        }
    }
}

impl SmtpUrl {
    /// From its text, which may be wrong ([`check`](Self::check)).
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether docket can work with it. Nothing is asked of any server.
    ///
    /// # Errors
    /// What is wrong and what would be right, without the password.
    pub fn check(&self) -> Result<(), String> {
        self.parts().map(drop)
    }

    /// What it says.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(super) fn parts(&self) -> Result<Parts, String> {
        let url = Url::parse(&self.0).map_err(|error| self.unreadable(&error))?;
        let encryption = encryption(&url)?;
        if url.fragment().is_some() {
            return Err(MUST_BE_ENCODED.to_owned());
        }
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(Host::Domain(_)) | None => return Err(format!("it names no host; {LOOKS_LIKE}")),
        };
        let port = url.port().unwrap_or_else(|| encryption.usual_port());
        Ok(Parts { host, port, encryption, login: login(&url)?, hello: hello(&url)? })
    }

    fn unreadable(&self, error: &url::ParseError) -> String {
        // An unencoded / or ? in a password ends the host for the parser.
        if address::login(&self.0).is_some_and(|login| login.contains(['/', '?', '#', '@', '[', ']'])) {
            return MUST_BE_ENCODED.to_owned();
        }
        format!("{error}; {LOOKS_LIKE}")
    }
}

const LOOKS_LIKE: &str = "it looks like smtps://USER:PASSWORD@HOST:465, smtp://USER:PASSWORD@HOST:587?tls=required, or \
                          smtp://HOST:25";

fn encryption(url: &Url) -> Result<Encryption, String> {
    let mut options = url.query_pairs();
    let (tls, further) = (options.next(), options.next());
    let tls = tls.as_ref().map(|(key, value)| (key.as_ref(), value.as_ref()));
    match (url.scheme(), tls, further) {
        ("smtps", None, _) => Ok(Encryption::Always),
        ("smtp", None | Some(("tls", "opportunistic")), None) => Ok(Encryption::Offered),
        ("smtp", Some(("tls", "required")), None) => Ok(Encryption::Required),
        ("smtp", Some(("tls", "none")), None) => Ok(Encryption::Never),
        ("smtps", Some(_), _) => {
            Err("smtps:// is encrypted from its first byte: leave out what follows the ?".to_owned())
        }
        ("smtp", _, _) => {
            Err("after its ? it may say tls=required, tls=opportunistic or tls=none, and nothing else".to_owned())
        }
        _ => Err(format!("its scheme is neither smtp nor smtps; {LOOKS_LIKE}")),
    }
}

fn login(url: &Url) -> Result<Option<(String, String)>, String> {
    let decoded = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(text) if !text.contains(char::is_control) => Ok(text.into_owned()),
        _ => Err(MUST_BE_ENCODED.to_owned()),
    };
    match (url.username(), url.password().unwrap_or_default()) {
        ("", "") => Ok(None),
        ("", _) | (_, "") => Err(format!("it has only one of user and password; {LOOKS_LIKE}")),
        (user, password) => Ok(Some((decoded(user)?, decoded(password)?))),
    }
}

fn hello(url: &Url) -> Result<Option<String>, String> {
    let name = url.path().trim_matches('/');
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)) {
        return Err("behind its host and a / stands the name in which docket greets the server: a name such as \
                    shop.example.com, or nothing"
            .to_owned());
    }
    Ok(Some(name.to_owned()).filter(|name| !name.is_empty()))
}

impl fmt::Display for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(parts) = self.parts() else { return f.write_str("an address that cannot be read") };
        let scheme = if parts.encryption == Encryption::Always { "smtps" } else { "smtp" };
        write!(f, "{scheme}://")?;
        if let Some((user, _)) = &parts.login {
            write!(f, "{user}:{HIDDEN}@")?;
        }
        if parts.host.contains(':') {
            write!(f, "[{}]", parts.host)?
        } else {
            f.write_str(&parts.host)?
        }
        write!(f, ":{}", parts.port)
    }
}

impl Serialize for SmtpUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        address::serialize(self, self.is_empty(), to)
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn parts(url: &str) -> Parts {
        SmtpUrl::new(url).parts().unwrap()
    }

    #[test]
    fn it_is_shown_without_its_password() {
        let url = SmtpUrl::new("smtp://shop%40example.com:s3%2Fcret@mail.example.com:2525/web?tls=required");
        assert_eq!(url.to_string(), "smtp://shop@example.com:***@mail.example.com:2525");
        assert!(!format!("{url:?}").contains("cret"));
        assert_eq!(SmtpUrl::new("smtps://[2001:db8::1]").to_string(), "smtps://[2001:db8::1]:465");
    }

    #[test]
    fn user_and_password_are_decoded() {
        let login = parts("smtps://shop%40example.com:s3%2Fcret%25%C3%A9@mail").login;
        assert_eq!(login, Some(("shop@example.com".to_owned(), "s3/cret%é".to_owned())));
        assert_eq!(parts("smtp://mail").login, None);
    }

    #[test]
    fn its_scheme_and_its_option_say_how_it_is_encrypted_and_where() {
        for (url, encryption, port) in [
            ("smtps://mail", Encryption::Always, 465),
            ("smtp://mail?tls=required", Encryption::Required, 587),
            ("smtp://mail?tls=opportunistic", Encryption::Offered, 25),
            ("smtp://mail", Encryption::Offered, 25),
            ("smtp://mail:1025/?tls=none", Encryption::Never, 1025),
        ] {
            let parts = parts(url);
            assert_eq!((parts.encryption, parts.port, parts.hello), (encryption, port, None), "{url}");
        }
        assert_eq!(parts("smtps://mail/web-1.shop.example").hello.as_deref(), Some("web-1.shop.example"));
    }

    #[test]
    fn an_address_of_either_internet_is_a_host() {
        assert_eq!((parts("smtp://127.0.0.1").host, parts("smtp://[::1]:25").host), ("127.0.0.1".into(), "::1".into()));
    }

    #[test]
    fn a_wrong_one_is_refused_without_its_password() {
        for wrong in [
            "smtp://docket:s3cret@mail:port",
            "smtp://docket:s3cret@mail?tls=perhaps",
            "smtp://docket:s3cret@mail?timeout=3",
            "smtp://docket:s3cret@mail?tls=none&tls=required",
            "smtps://docket:s3cret@mail?tls=none",
            "smtp://docket:s3cret@mail/a%20b",
            "smtp://docket:s3cret@mail#x",
            "smtp://docket:s3cret@",
            "smtp://:s3cret@mail",
            "smtp://docket:s3cret%0d%0a@mail",
            "smtp://docket:s3cret%ff@mail",
            "smtp://docket:a/s3cret@mail",
            "smtp://docket:a?s3cret@mail",
            "smtp://docket:a#s3cret@mail",
            "smtp:docket:s3cret@mail",
            "http://docket:s3cret@mail",
            "s3cret",
        ] {
            let said = SmtpUrl::new(wrong).check().unwrap_err();
            assert!(!said.contains("s3cret") && said.len() > 20, "{wrong}: {said}");
            assert!(!SmtpUrl::new(wrong).to_string().contains("s3cret"), "{wrong}");
        }
        assert!(SmtpUrl::new("smtp://docket:a/s3cret@mail").check().unwrap_err().contains("%2F"));
        assert!(SmtpUrl::new("smtp://docket@mail").check().unwrap_err().contains("only one"));
    }
}
