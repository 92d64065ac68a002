//! What the driver's errors mean to a port.

use actors::event_store::{Appended, StoreError};
use mongodb::error::{Error, ErrorKind, NO_WRITES_PERFORMED, WriteFailure};

/// A key that is there already.
pub const DUPLICATE_KEY: i32 = 11_000;
/// A collection that is there already (`NamespaceExists`).
pub const NAMESPACE_EXISTS: i32 = 48;
/// There is no room on the server's disk (`OutOfDiskSpace`).
pub const OUT_OF_DISK_SPACE: i32 = 14_031;

/// A transaction is in the way (`WriteConflict`).
pub const WRITE_CONFLICT: i32 = 112;
/// The same, given up on sooner (`LockTimeout`).
pub const LOCK_TIMEOUT: i32 = 24;
/// It took longer than it was to (`MaxTimeMSExpired`).
pub const OUT_OF_TIME: i32 = 50;

/// Somebody has forbidden it (`DocumentValidationFailure`, `UserWritesBlocked`), or it is too large.
const FORBIDDEN: [i32; 3] = [121, 371, 10_334];

/// What became of a statement of its own that the server refused. These codes mean that no attempt at it can succeed as
/// things are. Behind others, of a router or of a conflict with an earlier attempt, it may have been carried out.
pub fn refused(code: i32, message: String) -> Appended {
    match code {
        OUT_OF_DISK_SPACE => Appended::NotDone(StoreError::Full(message)),
        code if FORBIDDEN.contains(&code) => Appended::NotDone(StoreError::Away(message)),
        _ => Appended::Unknown(StoreError::Away(message)),
    }
}

/// Why something failed, in the words of a port.
pub fn store_error(error: &Error) -> StoreError {
    if code(error) == Some(OUT_OF_DISK_SPACE) {
        return StoreError::Full(error.to_string());
    }
    StoreError::Away(error.to_string())
}

/// The server's own code, when the server answered.
pub fn code(error: &Error) -> Option<i32> {
    if let ErrorKind::Command(error) = &*error.kind { Some(error.code) } else { None }
}

/// Whether a statement failed because its key is there already. Of several who upsert at once some are told so.
pub fn is_duplicate_key(error: &Error) -> bool {
    if let ErrorKind::Write(WriteFailure::WriteError(refused)) = &*error.kind {
        return refused.code == DUPLICATE_KEY;
    }
    code(error) == Some(DUPLICATE_KEY)
}

/// Whether all that an insert of many was refused for was there already, and nothing else is the matter.
pub fn were_there(error: &Error) -> bool {
    let ErrorKind::InsertMany(in_part) = &*error.kind else { return false };
    let mut refused = in_part.write_errors.iter().flatten();
    in_part.write_concern_error.is_none() && refused.all(|error| error.code == DUPLICATE_KEY)
}

/// Whether what failed certainly did nothing, in none of the driver's attempts. Nothing else can be believed: an attempt
/// may have been carried out though its connection broke, and a refusal of the next one would hide that.
pub fn is_certainly_not_done(error: &Error) -> bool {
    // No server was found for the first attempt; later the driver gives the first one's error instead. Under the label,
    // too, the error is that of an attempt which may have written, if there was one.
    matches!(&*error.kind, ErrorKind::ServerSelection { .. }) || error.contains_label(NO_WRITES_PERFORMED)
}
