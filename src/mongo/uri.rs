//! `mongodb.uri`: where a deployment is, and who asks. However it is shown, its password is not.
//!
//! What the address can say and docket decides by itself (concerns, retries, pool, deadlines) is refused with the key
//! that decides it, unless it says the same: taken silently, somebody would believe that it holds.

use std::fmt;

use mongodb::options::{Acknowledgment, ConnectionString, HostInfo, ReadConcernLevel, ReadPreference, ServerAddress};
use serde::{Deserialize, Serialize, Serializer};

use crate::address::{self, HIDDEN, MUST_BE_ENCODED};

/// An address, perhaps with a user and a password. Shown, and serialised, as scheme, user and hosts.
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

    /// Whether docket can work with it, for an order service in that database. Nothing is asked of any server.
    ///
    /// # Errors
    /// What is wrong and what would be right, without the password.
    pub fn check(&self, database: &str) -> Result<(), String> {
        let uri = ConnectionString::parse(&self.0).map_err(|error| self.unreadable(&error))?;
        if let Some(named) = uri.default_database.as_deref().filter(|named| *named != database) {
            return Err(format!(
                "it names the database {named}, and docket uses mongodb.database = {database:?}: leave it out, or set \
                 mongodb.database; to log in against {named} write /?authSource={named}"
            ));
        }
        match decided_elsewhere(&uri) {
            Some((option, instead)) => Err(format!("leave {option} out of it: {instead}")),
            None => Ok(()),
        }
    }

    fn unreadable(&self, error: &mongodb::error::Error) -> String {
        let Some((_, password)) = address::credentials(&self.0) else { return self.said(error) };
        if password.chars().any(|c| ":/?#[]@".contains(c)) || has_bare_percent(password) {
            return MUST_BE_ENCODED.to_owned();
        }
        self.said(error).replace(password, HIDDEN)
    }

    fn said(&self, error: &mongodb::error::Error) -> String {
        format!("{}; it looks like mongodb://HOST:27017/?replicaSet=rs0", error.kind)
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(uri) = ConnectionString::parse(&self.0) else { return f.write_str("an address that cannot be read") };
        let (scheme, hosts) = match &uri.host_info {
            HostInfo::HostIdentifiers(hosts) => {
                ("mongodb", hosts.iter().map(ServerAddress::to_string).collect::<Vec<_>>().join(","))
            }
            HostInfo::DnsRecord(name) => ("mongodb+srv", name.clone()),
            // The driver may come to know another way to name hosts. None of it is shown.
            _ => ("mongodb", "…".to_owned()),
        };
        let user = uri.credential.as_ref().and_then(|credential| credential.username.as_deref());
        match user {
            Some(user) => write!(f, "{scheme}://{user}:{HIDDEN}@{hosts}"),
            None => write!(f, "{scheme}://{hosts}"),
        }
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

/// A text, such as a parser's complaint with the line that it is about, in which no address shows its user and password.
pub fn redacted(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let shown = match (line.find("://"), line.rfind('@')) {
            (Some(scheme), Some(at)) if scheme < at => format!("{}{HIDDEN}{}", &line[..scheme + 3], &line[at..]),
            _ => line.to_owned(),
        };
        lines.push(shown);
    }
    lines.join("\n")
}

/// An option that has no effect or would break a promise, and what to do instead.
fn decided_elsewhere(uri: &ConnectionString) -> Option<(&'static str, &'static str)> {
    const DURABLE: &str = "docket writes to a majority's disks (w=majority, journal=true) or not at all";
    let write = uri.write_concern.as_ref();
    let weaker = write.and_then(|write| write.w.as_ref()).is_some_and(|w| *w != Acknowledgment::Majority);
    let unjournaled = write.is_some_and(|write| write.journal == Some(false));
    let reads = uri.read_concern.as_ref().is_some_and(|read| read.level != ReadConcernLevel::Majority);
    let elsewhere = uri.read_preference.as_ref().is_some_and(|read| !matches!(read, ReadPreference::Primary));
    let options = [
        ("w", weaker, DURABLE),
        ("journal", unjournaled, DURABLE),
        (
            "wTimeoutMS",
            write.is_some_and(|write| write.w_timeout.is_some()),
            "mongodb.answer_timeout_ms is the deadline",
        ),
        ("readConcernLevel", reads, "docket reads what a majority has"),
        ("readPreference", elsewhere, "docket reads at the primary"),
        ("retryWrites", uri.retry_writes == Some(false), "docket needs retryable writes"),
        ("retryReads", uri.retry_reads == Some(false), "docket needs retryable reads"),
        ("maxPoolSize", uri.max_pool_size.is_some(), "mongodb.pool_max says it"),
        ("minPoolSize", uri.min_pool_size.is_some(), "mongodb.pool_max says it"),
        ("maxConnecting", uri.max_connecting.is_some(), "docket decides it"),
        ("serverSelectionTimeoutMS", uri.server_selection_timeout.is_some(), "mongodb.selection_timeout_ms says it"),
        ("connectTimeoutMS", uri.connect_timeout.is_some(), "mongodb.selection_timeout_ms says it"),
        ("heartbeatFrequencyMS", uri.heartbeat_frequency.is_some(), "docket decides it"),
    ];
    options.into_iter().find(|(_, set, _)| *set).map(|(option, _, instead)| (option, instead))
}

/// Whether a `%` is there that does not begin an encoded byte.
fn has_bare_percent(text: &str) -> bool {
    let encoded = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    text.split('%').skip(1).any(|rest| !encoded(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "mongodb://docket:s3cret@db1:27017,db2:27018/?replicaSet=rs0&authSource=admin";

    fn refused(uri: &str) -> String {
        Uri::new(uri).check("docket").expect_err("a wrong address")
    }

    #[test]
    fn it_is_shown_without_its_password() {
        let uri = Uri::new(SECRET);
        assert_eq!(uri.to_string(), "mongodb://docket:***@db1:27017,db2:27018");
        assert!(!format!("{uri:?}").contains("s3cret"));
        assert_eq!(uri.expose(), SECRET);
        assert_eq!(
            Uri::new("mongodb+srv://u:s3cret@cluster.example.com/").to_string(),
            "mongodb+srv://u:***@cluster.example.com"
        );
    }

    #[test]
    fn a_wrong_one_is_refused_without_its_password() {
        for wrong in [
            "mongodb://docket:s3cret@db1:port/",
            "mongodb://docket:s3cret@db1/?nonsense=1",
            "mongodb://docket:s3cret@db1/?w=1",
            "mongodb://docket:s3cret@db1/shop",
            "mongodb://docket:a/s3cret@db1",
            "mongodb://docket:a?s3cret@db1",
            "mongodb://docket:a@s3cret@db1",
            "mongodb://docket:100%s3cret@db1",
            "mongodb://docket:s3cret:x@db1",
            "amqp://docket:s3cret@db1",
            "s3cret",
        ] {
            let said = refused(wrong);
            assert!(!said.contains("s3cret") && said.len() > 20, "{wrong}: {said}");
            assert!(!Uri::new(wrong).to_string().contains("s3cret"), "{wrong}");
        }
        assert!(refused("mongodb://docket:a/s3cret@db1").contains("%2F"));
    }

    #[test]
    fn what_docket_decides_is_refused_unless_it_says_the_same() {
        for (option, word) in [
            ("w=1", "majority"),
            ("journal=false", "disks"),
            ("readPreference=secondary", "primary"),
            ("readConcernLevel=local", "majority"),
            ("retryWrites=false", "retryable"),
            ("maxPoolSize=3", "mongodb.pool_max"),
            ("serverSelectionTimeoutMS=3", "mongodb.selection_timeout_ms"),
            ("wTimeoutMS=3", "mongodb.answer_timeout_ms"),
        ] {
            let said = refused(&format!("mongodb://db1/?{option}"));
            assert!(said.contains(word) && said.contains(option.split_once('=').expect("an option").0), "{said}");
        }
        let same =
            "retryWrites=true&w=majority&journal=true&readPreference=primary&readConcernLevel=majority&appName=a";
        Uri::new(&format!("mongodb://db1/?{same}")).check("docket").expect("the same");
    }

    #[test]
    fn a_database_in_it_is_the_order_services_or_refused() {
        Uri::new("mongodb://db1/docket").check("docket").expect("the same");
        let said = refused("mongodb://u:p@db1/admin");
        assert!(said.contains("authSource=admin") && said.contains("mongodb.database"), "{said}");
    }

    #[test]
    fn a_parsers_complaint_does_not_repeat_it() {
        let complaint = "error at line 2\n2 | uri = \"mongodb://u:s3cret@db1\n  | ^ no end";
        assert_eq!(redacted(complaint), "error at line 2\n2 | uri = \"mongodb://***@db1\n  | ^ no end");
    }
}
