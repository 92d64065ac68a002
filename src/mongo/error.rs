//! What the driver's errors mean to a port.

use actors::event_store::StoreError;
use mongodb::error::{Error, ErrorKind, NO_WRITES_PERFORMED};

/// A key that is there already.
pub const DUPLICATE_KEY: i32 = 11_000;
/// A collection that is there already (`NamespaceExists`).
pub const NAMESPACE_EXISTS: i32 = 48;
/// There is no room on the server's disk (`OutOfDiskSpace`).
const OUT_OF_DISK_SPACE: i32 = 14_031;

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

/// Whether what failed certainly did nothing, in none of the driver's attempts. Nothing else can be believed: an attempt
/// may have been carried out though its connection broke, and a refusal of the next one would hide that.
pub fn is_certainly_not_done(error: &Error) -> bool {
    // No server was found for the first attempt; later the driver gives the first one's error instead. Under the label,
    // too, the error is that of an attempt which may have written, if there was one.
    matches!(&*error.kind, ErrorKind::ServerSelection { .. }) || error.contains_label(NO_WRITES_PERFORMED)
}
