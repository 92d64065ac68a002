//! The headers of the contract: what callers promise and expect, and how it is written back.
//!
//! A header that cannot be read is refused when ignoring it could do harm (`If-Match`, `If-None-Match`,
//! `Idempotency-Key`), replaced or ignored when it is only about tracing (`X-Correlation-Id`, `traceparent`).

use std::fmt::Write;

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest};
use actors::commit::Origin;
use actors::order::Version;
use uuid::Uuid;

use super::guard::Caller;
use super::problem::Problem;

/// The same for everything that one request set off.
pub(crate) const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
/// What makes a repeated command take effect once.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// `true` on the answer of an earlier command with the same key.
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// W3C trace context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const CORRELATION_ID_CHARS_MAX: usize = 128;
const KEY_CHARS_MAX: usize = 255;
/// No order gets there: stands for entity tags that are none of ours, and so never match.
const NEVER: Version = Version(u32::MAX);

/// The correlation id of a request, as the edge has set it.
#[derive(Clone, Debug)]
pub(crate) struct CorrelationId(pub HeaderValue);

impl CorrelationId {
    /// The caller's, when it is 1 to 128 visible ASCII characters, else a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(&CORRELATION_ID).filter(|value| {
            (1..=CORRELATION_ID_CHARS_MAX).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
        });
        Self(sent.cloned().unwrap_or_else(|| written(Uuid::now_v7().as_hyphenated())))
    }
}

/// Who asked, and in the course of what.
pub(crate) fn origin(request: &HttpRequest) -> Origin {
    let correlation = request.extensions().get::<CorrelationId>().cloned();
    let CorrelationId(correlation) = correlation.unwrap_or_else(|| CorrelationId::of(request.headers()));
    let origin = Origin::anonymous(correlation.to_str().unwrap_or_default().to_owned(), traceparent(request.headers()));
    match Caller::of(&request.extensions()) {
        Some(name) => origin.with_api_key(name.as_str()),
        None => origin,
    }
}

/// The `traceparent`, when it is one that W3C trace context allows.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(&TRACEPARENT)?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, chars: usize| {
        part.len() == chars && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let set = |part: &str| part.bytes().any(|b| b != b'0');
    let known = hex(version, 2) && version != "ff" && (version != "00" || text.len() == 55);
    let whole = hex(trace, 32) && set(trace) && hex(parent, 16) && set(parent) && hex(flags, 2);
    (known && whole && text.len() <= CORRELATION_ID_CHARS_MAX).then(|| text.to_owned())
}

/// The versions of `If-Match`: `None` without it, empty for `*`.
///
/// # Errors
/// When it is neither `*` nor a list of entity tags.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<Vec<Version>>, Problem> {
    let Some(tags) = tags(headers, &header::IF_MATCH)? else { return Ok(None) };
    Ok(Some(match tags {
        Tags::Any => Vec::new(),
        Tags::These(tags) => tags.iter().map(|tag| if tag.weak { NEVER } else { tag.version() }).collect(),
    }))
}

/// What the caller says in `If-None-Match` that it has.
pub(crate) struct Held(Option<Tags>);

impl Held {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is neither `*` nor a list of entity tags.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        tags(headers, &header::IF_NONE_MATCH).map(Self)
    }

    /// Whether the caller has that version. A weak tag is as good as a strong one here.
    pub(crate) fn has(&self, version: Version) -> bool {
        match &self.0 {
            None => false,
            Some(Tags::Any) => true,
            Some(Tags::These(tags)) => tags.iter().any(|tag| tag.version() == version),
        }
    }
}

/// The `Idempotency-Key`: `abc` and `"abc"` are the same key.
///
/// # Errors
/// When it is there twice, or is not 1 to 255 visible ASCII characters.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::malformed("Idempotency-Key is there more than once."));
    }
    let key = value.to_str().ok().and_then(unquoted);
    let visible =
        key.filter(|key| (1..=KEY_CHARS_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()));
    match visible {
        Some(key) => Ok(Some(key)),
        None => Err(Problem::malformed("Idempotency-Key must be 1 to 255 visible ASCII characters, quoted or not.")),
    }
}

/// A version as an entity tag.
pub(crate) fn etag(version: Version) -> HeaderValue {
    written(format_args!("\"{version}\""))
}

/// Visible ASCII as a header's value.
pub(super) fn written(text: impl std::fmt::Display) -> HeaderValue {
    let mut bytes = String::with_capacity(64);
    // Writing to a string cannot fail.
    let _ = write!(bytes, "{text}");
    HeaderValue::from_maybe_shared(bytes).unwrap_or(HeaderValue::from_static(""))
}

fn unquoted(text: &str) -> Option<String> {
    let Some(rest) = text.strip_prefix('"') else { return Some(text.to_owned()) };
    let mut key = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(key),
            '\\' => match chars.next()? {
                escaped @ ('"' | '\\') => key.push(escaped),
                _ => return None,
            },
            other => key.push(other),
        }
    }
}

enum Tags {
    Any,
    These(Vec<Tag>),
}

struct Tag {
    weak: bool,
    opaque: String,
}

impl Tag {
    fn version(&self) -> Version {
        let digits = !self.opaque.starts_with('0') && self.opaque.bytes().all(|b| b.is_ascii_digit());
        let version = digits.then(|| self.opaque.parse().ok()).flatten();
        version.map_or(NEVER, Version)
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let mut values = headers.get_all(name).peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    let mut tags = Vec::new();
    for value in values {
        let text = value.to_str().map(str::trim).unwrap_or_default();
        if text == "*" && headers.get_all(name).count() == 1 {
            return Ok(Some(Tags::Any));
        }
        if read_tags(text, &mut tags).is_none() {
            return Err(Problem::malformed(format!(
                "{} must be * or a list of entity tags in quotes, such as \"3\".",
                if *name == header::IF_MATCH { "If-Match" } else { "If-None-Match" }
            )));
        }
    }
    Ok(Some(Tags::These(tags)))
}

fn read_tags(text: &str, tags: &mut Vec<Tag>) -> Option<()> {
    let mut rest = text;
    loop {
        let weak = rest.starts_with("W/");
        let opened = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
        let (opaque, after) = opened.split_once('"')?;
        if !opaque.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        tags.push(Tag { weak, opaque: opaque.to_owned() });
        let after = after.trim_start();
        if after.is_empty() {
            return Some(());
        }
        rest = after.strip_prefix(',')?.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        headers
    }

    fn versions(values: &[&str]) -> Option<Option<Vec<Version>>> {
        if_match(&with(header::IF_MATCH, values)).ok()
    }

    #[test]
    fn if_match_reads_tags_lists_and_the_star() {
        assert_eq!(versions(&[]), Some(None));
        assert_eq!(versions(&["*"]), Some(Some(vec![])));
        assert_eq!(versions(&["\"3\""]), Some(Some(vec![Version(3)])));
        assert_eq!(versions(&["\"3\", \"4\" ,\"5\""]), Some(Some(vec![Version(3), Version(4), Version(5)])));
        assert_eq!(versions(&["\"3\"", "\"4\""]), Some(Some(vec![Version(3), Version(4)])));
    }

    #[test]
    fn tags_that_are_none_of_ours_match_nothing() {
        for tag in ["W/\"3\"", "\"abc\"", "\"03\"", "\"\"", "\"4294967296\"", "\"a,b\"", "\"-1\"", "\"+3\""] {
            assert_eq!(versions(&[tag]), Some(Some(vec![NEVER])), "{tag}");
        }
    }

    #[test]
    fn an_if_match_that_cannot_be_read_is_refused() {
        for garbage in ["", "3", "\"3", "\"3\" \"4\"", "\"3\",", "*, \"3\"", "w/\"3\"", "\"3\"x", "\"ä\"", ","] {
            assert_eq!(versions(&[garbage]), None, "{garbage}");
        }
        assert_eq!(versions(&["*", "\"3\""]), None);
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let has = |text: &str| Held::of(&with(header::IF_NONE_MATCH, &[text])).ok().map(|held| held.has(Version(3)));
        assert_eq!(has("\"3\""), Some(true));
        assert_eq!(has("W/\"3\""), Some(true));
        assert_eq!(has("*"), Some(true));
        assert_eq!(has("\"2\", \"3\""), Some(true));
        assert_eq!(has("\"4\""), Some(false));
        assert_eq!(has("3"), None);
    }

    #[test]
    fn a_key_is_the_same_quoted_or_not() {
        let key = |text: &str| idempotency_key(&with(IDEMPOTENCY_KEY, &[text])).ok().flatten();
        assert_eq!(key("abc"), Some("abc".to_owned()));
        assert_eq!(key("\"abc\""), Some("abc".to_owned()));
        assert_eq!(key("\"a\\\"b\\\\\""), Some("a\"b\\".to_owned()));
        assert_eq!(key(&"k".repeat(255)), Some("k".repeat(255)));
        assert_eq!(key(&format!("\"{}\"", "k".repeat(255))), Some("k".repeat(255)));
        for wrong in ["", "\"\"", "a b", "\"a b\"", "\"abc", "\"", "\"a\"b", "\"a\\n\"", "ä", &"k".repeat(256)] {
            assert_eq!(key(wrong), None, "{wrong}");
        }
        assert!(idempotency_key(&with(IDEMPOTENCY_KEY, &["a", "a"])).is_err());
        assert_eq!(idempotency_key(&HeaderMap::new()).ok(), Some(None));
    }

    #[test]
    fn a_correlation_id_is_kept_or_replaced() {
        let id = |text: &str| CorrelationId::of(&with(CORRELATION_ID, &[text])).0;
        assert_eq!(id("abc"), "abc");
        assert_eq!(id(&"c".repeat(128)).len(), 128);
        for wrong in ["", "a b", "ä", &"c".repeat(129)] {
            assert_eq!(id(wrong).len(), 36, "{wrong}");
        }
    }

    #[test]
    fn a_traceparent_is_kept_only_when_it_is_one() {
        let of = |text: &str| traceparent(&with(TRACEPARENT, &[text]));
        let right = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(of(right).as_deref(), Some(right));
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert_eq!(of(later).as_deref(), Some(later));
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
