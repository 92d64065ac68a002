//! What a step that failed means for a mail.
//!
//! Until the server has taken the sender, nothing was said of this mail that does not hold for every other one: then no
//! mail can be sent now. From the recipient on a refusal is about the mail, unless its words say that it is about us.

use actors::mailer::MailError;

use super::connection::{Failed, Server, Step, Trouble};

/// What to make of it. `recipient` is left out of what the server said: it says whose order it is.
pub(super) fn verdict(server: &Server, failed: Failed, recipient: &str) -> MailError {
    let failed = failed.without(recipient);
    if failed.at == Step::Sender && matches!(failed.trouble, Trouble::Refused { .. }) {
        return MailError::DependencyDown(format!("{server}: notification.from is refused: {failed}"));
    }
    if failed.at < Step::Recipient {
        return MailError::DependencyDown(format!("{server}: {failed}"));
    }
    match &failed.trouble {
        Trouble::Refused { code, text } if is_about_us(failed.at, *code, &words(text, recipient)) => {
            MailError::DependencyDown(format!("{server} takes no mail from here: {failed}"))
        }
        Trouble::Refused { code: 500.., .. } | Trouble::Unable(_) => MailError::Undeliverable(failed.to_string()),
        Trouble::Silence(_) | Trouble::Broken(_) if failed.at == Step::Message => MailError::Transient(format!(
            "{server}: {failed}; it may have been taken, and is sent again with the same Message-ID"
        )),
        Trouble::Refused { .. } | Trouble::Silence(_) | Trouble::Broken(_) => {
            MailError::Transient(format!("{server}: {failed}"))
        }
    }
}

/// Whether the connection is to blame, and not the mail: an old one that the server has had enough of looks like this.
/// Where the message may have been taken, it is not.
pub(super) fn is_of_the_connection(failed: &Failed) -> bool {
    match &failed.trouble {
        Trouble::Refused { code, .. } => *code == CLOSING && failed.at < Step::Message,
        Trouble::Broken(_) => failed.at < Step::Message,
        // Another wait would be as long.
        Trouble::Silence(_) | Trouble::Unable(_) => false,
    }
}

/// "Service not available, closing transmission channel".
const CLOSING: u16 = 421;

/// What a server says of a client or a sender that it takes no mail of. Each has several words: one alone may be part of
/// a name.
const ABOUT_US: [&str; 30] = [
    "relay access denied",
    "relay denied",
    "relay not permitted",
    "relay is not permitted",
    "relay not allowed",
    "relay is not allowed",
    "relay prohibited",
    "relaying denied",
    "relaying not permitted",
    "relaying is not permitted",
    "relaying not allowed",
    "relaying is not allowed",
    "relaying prohibited",
    "relaying is prohibited",
    "permitted to relay",
    "allowed to relay",
    "authorized to relay",
    "authorised to relay",
    "unable to relay",
    "cannot relay",
    "can not relay",
    "do not relay",
    "don't relay",
    "does not relay",
    "will not relay",
    "credentials for relay",
    "list of allowed rcpthosts",
    "client host",
    "helo command rejected",
    "sender address rejected",
];

/// Whether a refusal after the sender was taken holds for every mail all the same. Many servers say only then what they
/// think of the client, of its sender, or of its having logged in.
///
/// What one reader's address can bring about is never among it: that would hold all others' mails. So no 500 and 504,
/// which an address that is too long or has no domain gets, no 521 and no 5.3.2, which its own server may have said; and
/// of what the server says, only whole phrases.
fn is_about_us(at: Step, code: u16, words: &str) -> bool {
    /// It closes; it knows no such command; a login that is missing or too weak.
    const CODES: [u16; 6] = [CLOSING, 502, 530, 534, 535, 538];
    /// RFC 3463: the sender's address, the system's configuration, the login.
    const STATUSES: [&str; 7] = ["5.1.7", "5.1.8", "5.3.5", "5.7.8", "5.7.9", "5.7.11", "5.7.14"];
    let status = words.split(' ').next().unwrap_or_default();
    CODES.contains(&code)
        || STATUSES.contains(&status)
        // "At the wrong moment": some mean that nobody has logged in. Of the mail itself, it is about what that holds.
        || code == 503 && at < Step::Message
        // DATA has nothing of the reader.
        || code == 500 && at == Step::Beginning
        || code >= 500 && ABOUT_US.iter().any(|phrase| format!(" {words} ").contains(&format!(" {phrase} ")))
}

/// What a server said, word by word, in small letters and without what is around the words. A word that is the reader's
/// domain, or the name before it, is none of the server's.
fn words(text: &str, recipient: &str) -> String {
    let text = text.to_lowercase();
    let recipient = recipient.to_lowercase();
    let (name, domain) = recipient.rsplit_once('@').unwrap_or_default();
    let words = text
        .split(|c: char| c.is_whitespace() || c == ';')
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    let words = words.filter(|word| !word.is_empty());
    words.map(|word| if word == name || word == domain { "***" } else { word }).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::super::super::SmtpUrl;
    use super::*;

    fn refused(at: Step, code: u16, text: &str) -> MailError {
        judged(at, Trouble::Refused { code, text: text.to_owned() })
    }

    fn judged(at: Step, trouble: Trouble) -> MailError {
        let server = Server::new(&SmtpUrl::new("smtp://docket:s3cret@mail")).unwrap();
        let said = verdict(&server, Failed { at, trouble }, "ana@example.com");
        assert!(!said.to_string().contains("s3cret") && !said.to_string().to_lowercase().contains("ana@"), "{said}");
        said
    }

    const FROM_THE_RECIPIENT_ON: [Step; 3] = [Step::Recipient, Step::Beginning, Step::Message];

    #[test]
    fn before_the_recipient_nothing_is_about_the_mail() {
        for at in [Step::Connecting, Step::Encrypting, Step::LoggingIn, Step::Sender] {
            for trouble in [
                Trouble::Refused { code: 450, text: "4.7.1 too many mails".to_owned() },
                Trouble::Refused { code: 550, text: "5.7.1 who are you?".to_owned() },
                Trouble::Silence(Duration::from_secs(1)),
                Trouble::Broken("connection refused".to_owned()),
                Trouble::Unable("no".to_owned()),
            ] {
                assert!(matches!(judged(at, trouble.clone()), MailError::DependencyDown(_)), "{at} {trouble:?}");
            }
        }
        assert!(refused(Step::Sender, 553, "5.7.1 not yours").to_string().contains("notification.from"));
    }

    #[test]
    fn a_recipient_or_a_message_that_is_refused_is_an_outcome() {
        for at in FROM_THE_RECIPIENT_ON {
            for (code, text) in [
                (550, "5.1.1 <Ana@Example.com>: nobody"),
                (501, "5.1.3 bad address"),
                (552, "5.2.2 full"),
                (554, "spam"),
            ] {
                let said = refused(at, code, text);
                assert!(matches!(&said, MailError::Undeliverable(why) if why.contains(&code.to_string())), "{said}");
            }
        }
    }

    #[test]
    fn not_now_is_tried_again() {
        for at in FROM_THE_RECIPIENT_ON {
            for code in [450, 451, 452] {
                assert!(matches!(refused(at, code, "4.2.0 later"), MailError::Transient(_)), "{at} {code}");
            }
            assert!(matches!(judged(at, Trouble::Silence(Duration::from_secs(1))), MailError::Transient(_)), "{at}");
        }
        let dropped = judged(Step::Message, Trouble::Broken("reset".to_owned())).to_string();
        assert!(dropped.contains("may have been taken"), "{dropped}");
    }

    #[test]
    fn what_would_be_said_of_every_mail_pauses() {
        for at in FROM_THE_RECIPIENT_ON {
            for (code, text) in [
                (421, "4.3.2 closing"),
                (502, "5.5.1 what?"),
                (530, "5.7.0 Authentication required"),
                (550, "5.1.8 <orders@localhost>: Sender address rejected"),
                (554, "5.7.1 <ana@example.com>: Relay access denied"),
                (550, "relay not permitted"),
                (550, "5.7.54 SMTP; Unable to relay recipient in non-accepted domain"),
                (550, "<Ana@Example.com>... Relaying denied. Proper authentication required."),
                (550, "5.7.1 Client host rejected: Access denied"),
                (554, "5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"),
                (504, "5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname"),
                (553, "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
            ] {
                assert!(matches!(refused(at, code, text), MailError::DependencyDown(_)), "{at} {code} {text}");
            }
        }
        for at in [Step::Recipient, Step::Beginning] {
            assert!(matches!(refused(at, 503, "5.5.1 AUTH first"), MailError::DependencyDown(_)), "{at}");
        }
        assert!(matches!(refused(Step::Beginning, 500, "unknown command"), MailError::DependencyDown(_)));
    }

    #[test]
    fn no_address_and_no_name_of_a_server_stops_the_others_mails() {
        for at in [Step::Recipient, Step::Message] {
            for (code, text) in [
                (550, "5.1.1 <bea@relay.example>: unknown, says smtp-relay.example.com"),
                (550, "5.2.1 mailbox disabled, see https://help.example.com/relay-access-denied"),
                (550, "mx.relay denied this recipient"),
                (554, "5.7.1 looks like spam from an open relay"),
                (500, "5.5.2 line too long"),
                (504, "5.5.2 <ana>: Recipient address rejected: need fully-qualified address"),
                (521, "5.2.1 example.com takes no mail"),
                (550, "5.3.2 its host takes no mail"),
            ] {
                assert!(matches!(refused(at, code, text), MailError::Undeliverable(_)), "{at} {code} {text}");
            }
        }
        // Whatever the reader is called.
        assert_eq!(words("550 <relay> access denied", "relay@example.com"), "550 *** access denied");
        assert_eq!(words("the domain Example.com.", "relay@example.com"), "the domain ***");
    }

    #[test]
    fn an_old_connection_is_to_blame_as_long_as_the_mail_cannot_have_been_taken() {
        let blamed = |at, trouble| is_of_the_connection(&Failed { at, trouble });
        let closing = || Trouble::Refused { code: 421, text: "4.4.2 timeout".to_owned() };
        let broken = || Trouble::Broken("reset".to_owned());
        let silence = || Trouble::Silence(Duration::from_secs(1));
        assert!(blamed(Step::Sender, closing()) && blamed(Step::Sender, broken()));
        assert!(blamed(Step::Recipient, broken()) && blamed(Step::Beginning, closing()));
        assert!(!blamed(Step::Message, broken()) && !blamed(Step::Message, closing()));
        assert!(!blamed(Step::Sender, silence()) && !blamed(Step::Recipient, silence()));
        assert!(!blamed(Step::Sender, Trouble::Refused { code: 550, text: "5.1.8 no".to_owned() }));
    }
}
