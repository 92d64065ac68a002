//! A transaction as commands, in the order in which they are sent. They are made once and sent again as they are.

use actors::inbox::{InboxError, Progress, Transaction};
use mongodb::bson::raw::{CStr, cstr};
use mongodb::bson::{self, Document, RawArrayBuf, RawDocumentBuf, doc};
use serde::Serialize;

use super::schema::{DISCARDS, DOCUMENTS, EFFECTS, INBOX, ONLY, SUBSCRIBER};
use super::{discards, documents, effects, rows, stored_term};
use crate::mongo::error::{DUPLICATE_KEY, OUT_OF_DISK_SPACE};
use crate::mongo::lease::Lease;

/// Statements of one command: the server takes 16 MiB and 100,000 of them.
const COMMAND_BYTES_MAX: usize = 8 << 20;
const COMMAND_STATEMENTS_MAX: usize = 10_000;
/// Largest document that MongoDB stores.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// A command, and what its answer has to say.
pub(super) struct Command {
    pub(super) body: RawDocumentBuf,
    expects: Expects,
    statements: usize,
}

/// What it means that a command did less than it was to.
#[derive(Clone, Copy, PartialEq)]
enum Expects {
    /// The term and the generation are the present ones.
    Present,
    /// The rows are as they were read.
    Unchanged,
    /// Nothing that was not known before.
    Nothing,
    /// What is new is not there.
    New,
}

/// Why a transaction is not to be committed.
pub(super) enum Refused {
    /// The term or the generation is another one.
    Superseded,
    /// A row is not as it was read.
    Changed,
    /// The server says that it may succeed if it is begun once more.
    Again(String),
    /// Something else.
    Failed(InboxError),
}

/// The commands that write a transaction.
///
/// The subscriber's document comes first. Whoever has written it holds it until the end of the transaction, so from
/// there on no other transaction of this inbox, and no new term, can come between; and when the term is over, nothing
/// else is tried.
pub(super) fn commands(lease: &Lease, transaction: &Transaction) -> Result<Vec<Command>, InboxError> {
    let mut commands = vec![subscriber(lease, transaction)?];
    let mut add = |kind: Kind, collection: &str, expects, statements| {
        commands.extend(split(kind, collection, expects, statements));
    };
    let (new, replaced) = rows::statements(transaction)?;
    add(Kind::Insert, INBOX, Expects::Unchanged, new);
    add(Kind::Update, INBOX, Expects::Unchanged, replaced);
    let (stored, deleted) = documents::statements(transaction)?;
    add(Kind::Update, DOCUMENTS, Expects::Nothing, stored);
    add(Kind::Delete, DOCUMENTS, Expects::Nothing, deleted);
    let (asked_for, outcomes) = effects::statements(transaction)?;
    add(Kind::Update, EFFECTS, Expects::Nothing, asked_for);
    add(Kind::Update, EFFECTS, Expects::Nothing, outcomes);
    add(Kind::Insert, DISCARDS, Expects::New, discards::statements(transaction)?);
    Ok(commands)
}

fn subscriber(lease: &Lease, transaction: &Transaction) -> Result<Command, InboxError> {
    let (mut present, mut fields) = match transaction.term {
        Some(term) => (lease.held_in(stored_term(term)?), lease.kept()),
        // Whoever has the lease keeps it, or not.
        None => (doc! { "_id": ONLY }, counted_on()),
    };
    present.insert("generation", i64::from(transaction.generation.0));
    if let Some(progress) = &transaction.progress {
        fields.extend(position(progress)?);
    }
    let statement = encode(&doc! { "q": present, "u": [{ "$set": fields }] })?;
    Ok(command(Kind::Update, SUBSCRIBER, Expects::Present, vec![statement]))
}

/// One more transaction of operators. Those before the first one were not counted.
fn counted_on() -> Document {
    doc! { "revision": { "$add": [{ "$ifNull": ["$revision", 0_i64] }, 1_i64] } }
}

fn position(progress: &Progress) -> Result<Document, InboxError> {
    let position = serde_json::to_string(&progress.position)
        .map_err(|error| InboxError::Damaged(format!("the position cannot be written: {error}")))?;
    let after = progress.catching_up.and_then(|catching_up| catching_up.after).map(|key| key.to_string());
    Ok(doc! {
        "position": { "$literal": position },
        "scanning": { "$literal": progress.catching_up.is_some() },
        "scan_after": { "$literal": after },
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Insert,
    Update,
    Delete,
}

impl Kind {
    /// The command's name, and that of its list.
    fn names(self) -> (&'static CStr, &'static CStr) {
        match self {
            Self::Insert => (cstr!("insert"), cstr!("documents")),
            Self::Update => (cstr!("update"), cstr!("updates")),
            Self::Delete => (cstr!("delete"), cstr!("deletes")),
        }
    }
}

/// As many commands as the statements need.
fn split(kind: Kind, collection: &str, expects: Expects, statements: Vec<RawDocumentBuf>) -> Vec<Command> {
    let mut commands = Vec::new();
    let (mut some, mut bytes) = (Vec::new(), 0);
    for statement in statements {
        let more = statement.as_bytes().len();
        if !some.is_empty() && (bytes + more > COMMAND_BYTES_MAX || some.len() >= COMMAND_STATEMENTS_MAX) {
            commands.push(command(kind, collection, expects, std::mem::take(&mut some)));
            bytes = 0;
        }
        bytes += more;
        some.push(statement);
    }
    if !some.is_empty() {
        commands.push(command(kind, collection, expects, some));
    }
    commands
}

fn command(kind: Kind, collection: &str, expects: Expects, statements: Vec<RawDocumentBuf>) -> Command {
    let (name, list) = kind.names();
    let count = statements.len();
    let mut body = RawDocumentBuf::new();
    body.append(name, collection);
    body.append(list, statements.into_iter().collect::<RawArrayBuf>());
    Command { body, expects, statements: count }
}

/// As BSON, if MongoDB can store it.
pub(super) fn encode(value: &impl Serialize) -> Result<RawDocumentBuf, InboxError> {
    let encoded = bson::serialize_to_raw_document_buf(value)
        .map_err(|error| InboxError::Damaged(format!("what is to be written has no form in BSON: {error}")))?;
    let bytes = encoded.as_bytes().len();
    if bytes > DOCUMENT_BYTES_MAX {
        return Err(InboxError::Full(format!("a document of {bytes} bytes: MongoDB stores at most 16 MiB")));
    }
    Ok(encoded)
}

impl Command {
    /// What the server's answer means.
    pub(super) fn judge(&self, answer: &Document) -> Result<(), Refused> {
        if let Some(error) = first_write_error(answer) {
            return Err(self.refused(error));
        }
        if answer.get_i32("n").ok().and_then(|n| usize::try_from(n).ok()) == Some(self.statements) {
            return Ok(());
        }
        match self.expects {
            Expects::Present => Err(Refused::Superseded),
            Expects::Unchanged => Err(Refused::Changed),
            Expects::Nothing | Expects::New => Ok(()),
        }
    }

    fn refused(&self, error: &Document) -> Refused {
        let why = error.get_str("errmsg").unwrap_or("it gives no reason");
        let why = format!("MongoDB refused a statement: {why}");
        match (error.get_i32("code"), self.expects) {
            (Ok(DUPLICATE_KEY), Expects::Unchanged) => Refused::Changed,
            (Ok(DUPLICATE_KEY), Expects::New) => Refused::Failed(InboxError::Damaged(why)),
            (Ok(OUT_OF_DISK_SPACE), _) => Refused::Failed(InboxError::Full(why)),
            (_, _) => Refused::Again(why),
        }
    }
}

fn first_write_error(answer: &Document) -> Option<&Document> {
    answer.get_array("writeErrors").ok()?.first()?.as_document()
}
