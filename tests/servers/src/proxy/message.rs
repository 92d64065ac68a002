//! Messages: of MongoDB's wire protocol, where each ends, and what a request asks for; of others, whatever comes at a time.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const HEADER_BYTES: usize = 16;
/// What a server takes at most, and some more.
const BYTES_MAX: usize = 64 << 20;
/// The only kind of request but for the first of a connection.
const OP_MSG: i32 = 2013;
const TEXT: u8 = 2;
/// Of a protocol that is not known.
const CHUNK_BYTES: usize = 64 << 10;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Mongodb,
    /// Not known here.
    Any,
}

impl Protocol {
    /// Reads a whole message; none at the end of a connection.
    pub(super) async fn read(self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Mongodb => read(from).await,
            Self::Any => {
                let mut chunk = Vec::with_capacity(CHUNK_BYTES);
                let size = from.read_buf(&mut chunk).await?;
                Ok((size > 0).then_some(chunk))
            }
        }
    }

    /// What a message asks for.
    pub(super) fn request(self, message: &[u8]) -> Request {
        match self {
            Self::Mongodb => parse(message).unwrap_or_default(),
            Self::Any => Request::default(),
        }
    }

    /// Whether every request has an answer, so that one can wait for it.
    pub(super) fn answers_each(self) -> bool {
        self == Self::Mongodb
    }
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `insert`, `find`, `commitTransaction`, … Empty for the first of a connection.
    pub command: String,
    /// The collection, of those that name one first: `insert`, `update`, `delete`, `find`, `aggregate`, `findAndModify`.
    pub collection: String,
}

/// Reads a whole message; none at the end of a connection.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let size = usize::try_from(i32::from_le_bytes(length)).unwrap_or(0);
    if !(HEADER_BYTES..=BYTES_MAX).contains(&size) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {size} bytes")));
    }
    let mut message = vec![0; size];
    message[..4].copy_from_slice(&length);
    from.read_exact(&mut message[4..]).await?;
    Ok(Some(message))
}

fn parse(message: &[u8]) -> Option<Request> {
    let operation = message.get(12..HEADER_BYTES)?;
    // After the header: four bytes of flags, the section's kind (0: one document), the document's length.
    let (&[.., 0], document) = message.get(HEADER_BYTES..)?.split_first_chunk::<5>()? else { return None };
    if operation != OP_MSG.to_le_bytes() {
        return None;
    }
    let (kind, rest) = document.get(4..)?.split_first()?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let command = String::from_utf8_lossy(&rest[..end]).into_owned();
    // A text: its length, its bytes, a zero.
    let value = rest.get(end + 5..).filter(|_| *kind == TEXT).unwrap_or_default();
    let collection = value.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Request { command, collection: String::from_utf8_lossy(collection).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{insert: "commits", n: 1}` of which kind of message.
    fn message(operation: i32, body: &[u8]) -> Vec<u8> {
        let length = i32::try_from(HEADER_BYTES + body.len()).expect("short");
        [&[length, 1, 0, operation].map(i32::to_le_bytes).concat(), body].concat()
    }

    #[test]
    fn a_request_is_known_by_its_command_and_collection() {
        let insert = message(OP_MSG, b"\0\0\0\0\0\x22\0\0\0\x02insert\0\x08\0\0\0commits\0\x10n\0\x01\0\0\0\0");
        assert_eq!(
            Protocol::Mongodb.request(&insert),
            Request { command: "insert".to_owned(), collection: "commits".to_owned() }
        );
        let hello = message(OP_MSG, b"\0\0\0\0\0\x10\0\0\0\x10hello\0\x01\0\0\0\0");
        assert_eq!(
            Protocol::Mongodb.request(&hello),
            Request { command: "hello".to_owned(), collection: String::new() }
        );
        assert_eq!(Protocol::Mongodb.request(&message(2004, b"\0\0\0\0admin.$cmd\0")), Request::default());
    }

    #[tokio::test]
    async fn messages_are_read_one_by_one_and_nonsense_is_none() {
        let two = [message(OP_MSG, b"one"), message(OP_MSG, b"two, longer")];
        let mut from = &two.concat()[..];
        assert_eq!(read(&mut from).await.expect("it is whole").as_ref(), Some(&two[0]));
        assert_eq!(read(&mut from).await.expect("it is whole").as_ref(), Some(&two[1]));
        assert_eq!(read(&mut from).await.expect("an end"), None);
        assert!(read(&mut &b"\x03\0\0\0nonsense"[..]).await.is_err());
        assert!(read(&mut &two[1][..20]).await.is_err());
    }
}
