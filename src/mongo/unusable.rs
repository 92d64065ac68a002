//! Why a deployment cannot be worked with, told apart by whether waiting may mend it, and in few words: for the start and
//! for `docket check`. What is under way later goes through [`Server::answer`](super::Server::answer) instead.

use std::time::Duration;

use mongodb::error::{Error, ErrorKind};
use tokio::time::timeout;

use super::error;

/// Why a deployment cannot be worked with.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unusable {
    /// It does not answer now. It may later.
    #[error("{0}")]
    Away(String),
    /// It does not let us in, or not do what we must. Waiting would not mend it.
    #[error("{0}")]
    Refused(String),
}

/// Waits for an answer, but not for ever.
///
/// # Errors
/// Whatever keeps the answer from coming, told apart by whether waiting may help.
pub async fn answered<T>(
    within: Duration,
    operation: impl IntoFuture<Output = mongodb::error::Result<T>>,
) -> Result<T, Unusable> {
    match timeout(within, operation).await {
        Ok(answer) => answer.map_err(|error| unusable(&error)),
        Err(_) => Err(Unusable::Away(format!("no answer within {} ms", within.as_millis()))),
    }
}

/// Whether waiting may help.
pub fn unusable(error: &Error) -> Unusable {
    let said = words(error);
    let never = matches!(
        &*error.kind,
        ErrorKind::Authentication { .. }
            | ErrorKind::IncompatibleServer { .. }
            | ErrorKind::InvalidTlsConfig { .. }
            | ErrorKind::InvalidArgument { .. }
    );
    if never || is_refusal(error) { Unusable::Refused(said) } else { Unusable::Away(said) }
}

/// Whether the server does not let this user do that.
pub fn is_refusal(error: &Error) -> bool {
    error::code(error).is_some_and(|code| REFUSALS.contains(&code))
}

/// `Unauthorized`, `AuthenticationFailed`, `AtlasError`.
const REFUSALS: [i32; 3] = [13, 18, 8000];

/// An error in few words, without what only the driver's authors want to know.
pub fn words(error: &Error) -> String {
    let refusal = is_refusal(error);
    if let ErrorKind::ServerSelection { message, .. } = &*error.kind {
        selection(message)
    } else if let ErrorKind::Authentication { message, .. } = &*error.kind {
        format!("it does not let this user in: {message}")
    } else if let ErrorKind::Command(command) = &*error.kind {
        let who = if refusal { "it does not allow this user that: " } else { "" };
        format!("{who}{} ({})", command.message, command.code)
    } else {
        error.kind.to_string()
    }
}

/// No server could be chosen: what each one said, from the driver's description of them all.
fn selection(message: &str) -> String {
    let servers: Vec<String> = message.split("{ Address: ").skip(1).map(server_words).collect();
    match message.split_once("Set Name: ") {
        _ if !servers.is_empty() => servers.join("; "),
        Some((_, name)) => {
            let name = name.split([',', ' ']).next().unwrap_or_default();
            format!("no server that it names is a member of a replica set {name} (a standalone server is of none)")
        }
        None => message.to_owned(),
    }
}

fn server_words(description: &str) -> String {
    let address = description.split(',').next().unwrap_or_default();
    if description.contains("Type: RsGhost") || description.contains("Type: RSGhost") {
        return format!("{address}: its replica set is not initiated: run `mongosh --eval \"rs.initiate()\"` once");
    }
    let unknown = description.contains("Type: Unknown");
    let error = description.split_once("Error: ").map(|(_, error)| error.trim_start_matches("Kind: "));
    match error.and_then(|error| error.split(", labels: ").next()) {
        Some(error) => format!("{address}: {error}"),
        None if unknown => format!("{address}: it does not answer"),
        None => format!("{address}: it takes no writes, and no other server does"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_to_choose_is_said_server_by_server() {
        let message = "Server selection timeout: No available servers. Topology: { Type: Unknown, Servers: [ \
            { Address: a:1, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {} }, \
            { Address: b:2, Type: RsGhost, Average RTT: 1ms } ] }";
        let said = selection(message);
        assert!(said.starts_with("a:1: I/O error: Connection refused (os error 111); b:2: "), "{said}");
        assert!(said.contains("rs.initiate()"), "{said}");
        let mute = "Topology: { Type: Unknown, Servers: [ { Address: a:1, Type: Unknown } ] }";
        assert_eq!(selection(mute), "a:1: it does not answer");
        let none =
            "Server selection timeout: No available servers. Topology: { Type: ReplicaSetNoPrimary, Set Name: rs0 }";
        assert!(selection(none).contains("replica set rs0 (a standalone"), "{}", selection(none));
        assert_eq!(selection("something else"), "something else");
    }
}
