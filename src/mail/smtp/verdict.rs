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
        Trouble::Refused { code, text } if is_about_us(*code, text) => {
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

/// Whether a refusal after the sender was taken holds for every mail all the same. Many servers say only then what they
/// think of the client, of its sender, or of its having logged in.
fn is_about_us(code: u16, text: &str) -> bool {
    /// No mail here; commands that are not known or come at the wrong moment; a login that is missing or too weak.
    const CODES: [u16; 10] = [CLOSING, 500, 502, 503, 504, 521, 530, 534, 535, 538];
    /// RFC 3463: the sender's address, the system as a whole, the login.
    const STATUSES: [&str; 8] = ["5.1.7", "5.1.8", "5.3.2", "5.3.5", "5.7.8", "5.7.9", "5.7.11", "5.7.14"];
    let status = text.split_whitespace().next().unwrap_or_default();
    let relays_not = code >= 500 && text.to_ascii_lowercase().contains("relay");
    CODES.contains(&code) || STATUSES.contains(&status) || relays_not
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
        let server = Server::new(&SmtpUrl::new("smtp://docket:s3cret@mail"), Duration::from_secs(1)).unwrap();
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
                (503, "5.5.1 MAIL first"),
                (530, "5.7.0 Authentication required"),
                (550, "5.1.8 <orders@localhost>: Sender address rejected"),
                (554, "5.7.1 <ana@example.com>: Relay access denied"),
                (550, "relay not permitted"),
            ] {
                assert!(matches!(refused(at, code, text), MailError::DependencyDown(_)), "{at} {code} {text}");
            }
        }
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
