//! How a transaction is written: the commands inside a transaction of the server's, and then its commit, whose answer
//! may never come.
//!
//! One is under way at a time, all on one session. What may happen:
//! - *The answer to a command does not come.* The commit was not sent, so nothing was written. What the server still
//!   holds is aborted by the next transaction: a session has one at a time, and a later one ends the one before, also
//!   when that arrives late. Whoever renews the lease first ends it too ([`MongoInbox::clear_way`]), and so does a new
//!   term, when the transaction has had its time. Without any of them the server ends a transaction after a minute.
//! - *The answer to the commit does not come.* It is sent again until it is answered or time is up. Then the
//!   transaction is stored, or may come to be, as long as the commit is on its way: it holds the subscriber's document,
//!   and with it the rows, until it is one or the other. So the same transaction, committed again, is either behind it,
//!   finds its rows and is fenced by them, or has ended it, and is written; the late commit is then refused.
//! - *The server does not know the transaction at the commit* (it was restarted, another is the primary): it is written
//!   again, conditional on the rows like every other time. If it was stored after all, its own rows fence it.
//! - *The caller is gone in the middle of it*: like an answer that does not come.
//! - *Another process begins a term meanwhile*: both write the subscriber's document. One of them waits for the other or
//!   is refused; if the term was first, the transaction finds another one there.
//! - *An operator writes meanwhile, from any process*: likewise, and whoever was refused begins once more, until it is
//!   their turn. A process that ends in the middle of an operator's transaction leaves it open: others find out whose it
//!   is ([`MongoInbox::announce`]) and end it.

use std::time::Duration;

use actors::inbox::InboxError;
use mongodb::ClientSession;
use mongodb::error::{Error, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria};

use super::statements::{Command, Refused};
use super::{MongoInbox, inbox_error};
use crate::mongo::error::{code, is_certainly_not_done, store_error};
use crate::mongo::server::Failed;

/// Waits before a commit is sent again.
const COMMIT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How an attempt ended.
pub(super) enum Attempt {
    /// Everything is stored.
    Written,
    /// Nothing is.
    Refused(Refused),
    /// The server does not know the transaction whose commit it was sent.
    Lost(String),
}

/// What a commit came to.
enum Ended {
    Written,
    /// It was never sent.
    Unsent(InboxError),
    Lost(String),
    /// Nobody knows.
    Unknown(String),
}

/// Who sends all transactions of an inbox, one at a time.
pub(super) struct Writer {
    session: ClientSession,
    /// Whether the server may have a transaction of this session that is neither committed nor aborted.
    left_open: bool,
}

impl Writer {
    pub(super) fn new(session: ClientSession) -> Self {
        Self { session, left_open: false }
    }
}

impl MongoInbox {
    /// Once through the commands and the commit.
    pub(super) async fn attempt(&self, writer: &mut Writer, commands: &[Command]) -> Result<Attempt, InboxError> {
        let session = &mut writer.session;
        // Until something else is known, also when the caller goes away.
        writer.left_open = true;
        let ended = match self.server.answer(async { Ok(self.send(session, commands).await) }).await {
            Ok(Ok(())) => self.commit_sent(session).await?,
            Ok(Err(refused)) => {
                // Whether it is aborted now or later: it is not committed.
                let aborted = self.server.answer(session.abort_transaction()).await;
                writer.left_open = aborted.is_err();
                return Ok(Attempt::Refused(refused));
            }
            Err(Failed::NotDone(error) | Failed::Unknown(error)) => return Err(inbox_error(error)),
        };
        writer.left_open = false;
        Ok(ended)
    }

    /// Ends what may have been left open, so that it is in nobody's way.
    pub(super) async fn clear_way(&self) {
        // A transaction that is under way takes a moment only.
        let Ok(mut writer) = self.writer.try_lock() else { return };
        self.clear_way_of(&mut writer).await;
    }

    /// The same for whoever has the writer.
    pub(super) async fn clear_way_of(&self, writer: &mut Writer) {
        if writer.left_open {
            self.end_session(&self.session_id).await;
            writer.left_open = false;
        }
    }

    async fn send(&self, session: &mut ClientSession, commands: &[Command]) -> Result<(), Refused> {
        // There is one when its caller went away or its time was up.
        drop(session.abort_transaction().await);
        let begun = session
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            // Its time-out comes with the label of a commit whose outcome is unknown, so it is sent again.
            .write_concern(self.server.durable())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        begun.await.map_err(|error| refused(&error))?;
        for command in commands {
            let answer = self.database.run_raw_command(command.body.clone()).session(&mut *session).await;
            command.judge(&answer.map_err(|error| refused(&error))?)?;
        }
        Ok(())
    }

    async fn commit_sent(&self, session: &mut ClientSession) -> Result<Attempt, InboxError> {
        match self.server.answer(async { Ok(commit(session).await) }).await {
            Ok(Ended::Written) => Ok(Attempt::Written),
            Ok(Ended::Unsent(error)) => Err(error),
            Ok(Ended::Lost(why)) => Ok(Attempt::Lost(why)),
            Ok(Ended::Unknown(why)) => Err(InboxError::Unknown(why)),
            Err(Failed::NotDone(error)) => Err(inbox_error(error)),
            Err(Failed::Unknown(error)) => Err(InboxError::Unknown(error.to_string())),
        }
    }
}

/// Sends the commit until its answer is clear.
async fn commit(session: &mut ClientSession) -> Ended {
    let mut first = true;
    loop {
        let Err(error) = session.commit_transaction().await else { return Ended::Written };
        if first && is_certainly_not_done(&error) {
            return Ended::Unsent(inbox_error(store_error(&error)));
        }
        if error.contains_label(TRANSIENT_TRANSACTION_ERROR) {
            return Ended::Lost(error.to_string());
        }
        if !error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) {
            return Ended::Unknown(error.to_string());
        }
        first = false;
        tokio::time::sleep(COMMIT_AGAIN_AFTER).await;
    }
}

/// What an error means before the commit is sent: nothing is written in any case. Where the server itself says that it
/// may succeed, it is begun once more; when it could not be asked, that is for the caller to do, later.
fn refused(error: &Error) -> Refused {
    if error.contains_label(TRANSIENT_TRANSACTION_ERROR) && code(error).is_some() {
        return Refused::Again(error.to_string());
    }
    Refused::Failed(inbox_error(store_error(error)))
}
