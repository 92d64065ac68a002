//! What the driver's errors mean to a port.

use actors::event_store::StoreError;
use mongodb::error::{Error, ErrorKind};

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

/// Whether what failed was certainly not begun: no server could be selected to send it to. (After a first attempt the
/// driver gives that attempt's error instead.)
pub fn is_unsent(error: &Error) -> bool {
    matches!(&*error.kind, ErrorKind::ServerSelection { .. })
}
