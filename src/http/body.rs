//! Reads a request's body: bounded in bytes and in time, and as JSON that says where it is wrong.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::{Bytes, BytesMut, Payload};
use actors::order::error::FieldError;
use futures_util::StreamExt;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::problem::{self, Problem};

/// Most bytes of a body: 64 KiB.
pub(crate) const BYTES_MAX: usize = 64 * 1024;

/// A JSON object: serde alone would also take an array of the members' values for a struct, in the order of its fields.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData))
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

/// The body as `T`.
///
/// # Errors
/// 415, 413, 408, and 400 with the place.
pub(crate) async fn json<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: Payload,
    timeout: Duration,
) -> Result<T, Problem> {
    is_json(request)?;
    decode(&read(request, payload, timeout).await?)
}

/// The body as `T`, or the default when there is none.
///
/// # Errors
/// 415, 413, 408, and 400 with the place.
pub(crate) async fn json_or_nothing<T: DeserializeOwned + Default>(
    request: &HttpRequest,
    payload: Payload,
    timeout: Duration,
) -> Result<T, Problem> {
    let bytes = read(request, payload, timeout).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    is_json(request)?;
    decode(&bytes)
}

fn is_json(request: &HttpRequest) -> Result<(), Problem> {
    let unsupported = |detail: &'static str| Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, detail);
    if let Some(coding) = request.headers().get(header::CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(unsupported("The body must not be compressed."));
    }
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(media_type) = media_type else {
        return Err(unsupported("The body must have the Content-Type application/json."));
    };
    if media_type == "application/json" {
        return Ok(());
    }
    let mut parts = media_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/").unwrap_or_default();
    if subtype != "json" && !subtype.ends_with("+json") {
        return Err(unsupported("The body must have the Content-Type application/json."));
    }
    let foreign_charset = parts.filter_map(|part| part.split_once('=')).any(|(name, value)| {
        name.trim().eq_ignore_ascii_case("charset") && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    if foreign_charset { Err(unsupported("The body must be in UTF-8.")) } else { Ok(()) }
}

async fn read(request: &HttpRequest, mut payload: Payload, timeout: Duration) -> Result<Bytes, Problem> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > BYTES_MAX as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(timeout, collect(&mut payload)).await {
        Ok(bytes) => bytes,
        Err(_) => Err(Problem::new(problem::BODY_TIMEOUT, "The body did not arrive in time. Nothing was done.")
            .header(header::CONNECTION, header::HeaderValue::from_static("close"))),
    }
}

async fn collect(payload: &mut Payload) -> Result<Bytes, Problem> {
    let cut_off = |_| Problem::malformed("The body ended before it was whole.");
    let Some(first) = payload.next().await.transpose().map_err(cut_off)? else { return Ok(Bytes::new()) };
    let Some(second) = payload.next().await.transpose().map_err(cut_off)? else {
        return if first.len() > BYTES_MAX { Err(too_large()) } else { Ok(first) };
    };
    let mut bytes = BytesMut::from(first.as_ref());
    bytes.extend_from_slice(&second);
    while bytes.len() <= BYTES_MAX {
        match payload.next().await.transpose().map_err(cut_off)? {
            Some(chunk) => bytes.extend_from_slice(&chunk),
            None => return Ok(bytes.freeze()),
        }
    }
    Err(too_large())
}

fn too_large() -> Problem {
    Problem::new(problem::BODY_TOO_LARGE, "A body has at most 64 KiB.")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    match serde_json::from_slice(bytes) {
        Ok(Object(body)) => Ok(body),
        Err(_) if bytes.is_empty() => Err(Problem::malformed("The body is empty.")),
        Err(_) => Err(where_it_is_wrong::<T>(bytes)),
    }
}

/// Reads again, slower, to say where: the ordinary body never comes here.
fn where_it_is_wrong<T: DeserializeOwned>(bytes: &[u8]) -> Problem {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let (path, error) = match serde_path_to_error::deserialize::<_, Object<T>>(&mut deserializer) {
        Err(error) => (error.path().to_string(), error.into_inner()),
        Ok(_) => match deserializer.end() {
            Err(error) => (".".to_owned(), error),
            Ok(()) => return Problem::malformed("The body cannot be read."),
        },
    };
    let reason = in_words(&error);
    if path == "." || error.is_syntax() || error.is_eof() {
        return Problem::malformed(format!("The body cannot be read: {reason}."));
    }
    Problem::malformed(format!("The body cannot be read at {path}: {reason}."))
        .errors(vec![FieldError { field: path, reason }])
}

/// What the JSON reader says, without the names that our types have inside.
fn in_words(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.replace("expected i64", "expected a whole number");
    message.replace("expected u32", "expected a whole number")
}
