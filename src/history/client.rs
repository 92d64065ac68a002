//! Asks an order service: its address, the key, and what each answer means.

use std::sync::Arc;
use std::time::Duration;

use actors::event_store::StoreError;
use actors::log::LogError;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use tokio::time::timeout;

use super::wire::{About, Problem};
use super::{RemoteHistory, RemoteLog, RemoteNodes};
use crate::http::NO_SUCH_PATH;

/// For a connection to come about.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// For an answer to begin: longer than the order service itself waits for its store.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// For a page to arrive.
const PAGE_WITHIN: Duration = Duration::from_secs(30);
/// An idle connection is closed earlier than the order service would.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a page: what one has at most, and one commit that is as large as any can be.
const PAGE_BYTES_MAX: usize = 32 << 20;

/// Where an order service answers, and with which key. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    url: Url,
    http: reqwest::Client,
}

/// Whether docket can ask there.
///
/// # Errors
/// What is wrong and what would be right.
pub fn check_address(address: &str) -> Result<Url, String> {
    let wrong = |why: &str| Err(format!("{why}; it looks like http://orders:8081"));
    let Ok(mut url) = address.parse::<Url>() else { return wrong("must be an address") };
    if url.scheme() != "http" {
        return wrong("must begin with http://, for docket speaks no TLS itself");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("must have no user and no password: who asks is said by history.key");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("must end with the path");
    }
    // What is joined to it goes below it.
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

impl Client {
    /// The order service with its operators' address there. Without a key when that is empty. Nothing is asked yet.
    ///
    /// # Errors
    /// When the address or the key cannot be right, in words that do not show the key.
    pub fn new(address: &str, key: &str) -> Result<Self, String> {
        let url = check_address(address).map_err(|why| format!("history.url: {why}"))?;
        let mut headers = HeaderMap::new();
        if !key.is_empty() {
            let bearer = HeaderValue::from_str(&format!("Bearer {key}"));
            let mut bearer = bearer.map_err(|_| "history.key: it has characters that no key has".to_owned())?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(concat!("docket/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_WITHIN)
            .pool_idle_timeout(IDLE_MAX)
            .tcp_nodelay(true)
            // A key goes nowhere but to the address that was configured.
            .redirect(Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| innermost(&error))?;
        Ok(Self { shared: Arc::new(Shared { url, http }) })
    }

    /// The log there, with its events.
    pub fn log(&self) -> RemoteLog {
        RemoteLog::new(self.clone())
    }

    /// The history there, which is followed without its events.
    pub fn history(&self) -> RemoteHistory {
        RemoteHistory::new(self.clone())
    }

    /// The registry there.
    pub fn nodes(&self) -> RemoteNodes {
        RemoteNodes::new(self.clone())
    }

    /// What the order service says of itself.
    ///
    /// # Errors
    /// When it does not answer, or does not accept the key.
    pub async fn about(&self) -> Result<About, StoreError> {
        let body = self.page(self.get("history", &[])).await?;
        serde_json::from_slice(&body).map_err(|_| self.no_docket())
    }

    /// The address, for people.
    pub fn address(&self) -> &Url {
        &self.shared.url
    }

    pub(super) fn get(&self, path: &str, query: &[(&str, &str)]) -> RequestBuilder {
        self.shared.http.get(self.at(path, query))
    }

    pub(super) fn post(&self, path: &str) -> RequestBuilder {
        self.shared.http.post(self.at(path, &[]))
    }

    pub(super) fn delete(&self, path: &str, query: &[(&str, &str)]) -> RequestBuilder {
        self.shared.http.delete(self.at(path, query))
    }

    fn at(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.shared.url.clone();
        // An http address can have a path, so there are segments to add to.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// A whole answer.
    pub(super) async fn page(&self, request: RequestBuilder) -> Result<Vec<u8>, StoreError> {
        let whole = async {
            let mut answer = self.answer(request).await.map_err(|error| match error {
                LogError::NoPosition(why) => self.away(why),
                LogError::Store(error) => error,
            })?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(|error| self.broke_off(&error))? {
                if body.len() + chunk.len() > PAGE_BYTES_MAX {
                    return Err(self.away("its answer is longer than any that it may give"));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(body)
        };
        timeout(PAGE_WITHIN, whole).await.unwrap_or_else(|_| Err(self.silent(PAGE_WITHIN)))
    }

    /// An answer that has begun, and says yes.
    pub(super) async fn answer(&self, request: RequestBuilder) -> Result<Response, LogError> {
        let sent = timeout(ANSWER_WITHIN, request.send()).await.map_err(|_| self.silent(ANSWER_WITHIN))?;
        let answer = sent.map_err(|error| self.away(innermost(&error)))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = timeout(ANSWER_WITHIN, answer.bytes()).await.ok().and_then(Result::ok).unwrap_or_default();
        Err(self.refused(status, serde_json::from_slice(&body).ok()))
    }

    /// What an answer means that is no.
    fn refused(&self, status: StatusCode, problem: Option<Problem<'_>>) -> LogError {
        match (status, problem) {
            (StatusCode::UNAUTHORIZED, _) => self.away("it does not know history.key (401)").into(),
            (StatusCode::FORBIDDEN, Some(problem)) if problem.name() == "foreign-origin" => {
                self.away("it does not know itself under that name: its ops.hosts must have it").into()
            }
            (StatusCode::FORBIDDEN, Some(problem)) => self.away(format!("{} (403)", problem.detail)).into(),
            (StatusCode::FORBIDDEN, None) => self.away("it does not allow that to history.key (403)").into(),
            (_, Some(problem)) => self.problem(&problem),
            (_, None) => self.no_docket().into(),
        }
    }

    /// What a problem means.
    pub(super) fn problem(&self, problem: &Problem<'_>) -> LogError {
        match problem.name() {
            "no-position" => LogError::NoPosition(problem.detail.clone().into_owned()),
            "internal" => {
                StoreError::Damaged(format!("the order service at {}: {}", self.address(), problem.detail)).into()
            }
            _ if problem.detail == NO_SUCH_PATH => self.no_docket().into(),
            _ => self.away(&*problem.detail).into(),
        }
    }

    fn no_docket(&self) -> StoreError {
        self.away("what answers there is not the operators' address (ops.bind) of a docket of this version")
    }

    pub(super) fn silent(&self, waited: Duration) -> StoreError {
        self.away(format!("nothing came for {} s", waited.as_secs()))
    }

    pub(super) fn broke_off(&self, error: &reqwest::Error) -> StoreError {
        self.away(format!("its answer broke off: {}", innermost(error)))
    }

    /// It may be better later.
    pub(super) fn away(&self, why: impl AsRef<str>) -> StoreError {
        StoreError::Away(format!("the order service at {}: {}", self.address(), why.as_ref()))
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_a_service_without_who_asks() {
        for right in ["http://orders:8081", "http://[::1]:8081/", "http://10.0.0.1/docket"] {
            assert!(check_address(right).is_ok_and(|url| url.path().ends_with('/')), "{right}");
        }
        for wrong in ["", "orders:8081", "ftp://orders", "http://ana:s3cret@orders", "http://orders?key=s3cret"] {
            let said = check_address(wrong).expect_err(wrong);
            assert!(said.contains("http://orders:8081") && !said.contains("s3cret"), "{said}");
        }
    }

    #[test]
    fn a_path_is_below_the_address_and_keeps_what_it_holds() {
        let client = Client::new("http://127.0.0.1:9/docket", "").expect("a client");
        assert_eq!(client.at("history/orders/1", &[]).as_str(), "http://127.0.0.1:9/docket/history/orders/1");
        let client = Client::new("http://127.0.0.1:9", "").expect("a client");
        let url = client.at("history/follow", &[("from", "a b?&c"), ("events", "true")]);
        assert_eq!(url.as_str(), "http://127.0.0.1:9/history/follow?from=a+b%3F%26c&events=true");
    }

    #[test]
    fn the_key_is_never_shown() {
        let client = Client::new("http://127.0.0.1:9", "s3cret").expect("a client");
        assert!(!format!("{client:?}").contains("s3cret"));
        let said = Client::new("http://127.0.0.1:9", "s3cret\n").expect_err("no key has that");
        assert!(said.contains("history.key") && !said.contains("s3cret"), "{said}");
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let client = Client::new("http://127.0.0.1:9", "s3cret").expect("a client");
        let error = client.about().await.expect_err("nobody is there");
        assert!(matches!(&error, StoreError::Away(why) if why.contains("http://127.0.0.1:9/")), "{error}");
    }

    #[test]
    fn what_each_no_means() {
        let client = Client::new("http://127.0.0.1:9", "s3cret").expect("a client");
        let problem =
            |name: &str| Some(Problem { r#type: format!("/problems/{name}").into(), detail: "so it is".into() });
        let refused = |status: u16, problem| client.refused(StatusCode::from_u16(status).expect("a status"), problem);
        assert!(matches!(refused(410, problem("no-position")), LogError::NoPosition(why) if why == "so it is"));
        assert!(matches!(refused(500, problem("internal")), LogError::Store(StoreError::Damaged(_))));
        for (status, problem, word) in [
            (401, problem("unauthorized"), "history.key"),
            (403, problem("forbidden"), "so it is"),
            (403, problem("foreign-origin"), "ops.hosts"),
            (403, None, "history.key"),
            (503, problem("store-away"), "so it is"),
            (404, None, "ops.bind"),
            (200, None, "ops.bind"),
        ] {
            let error = refused(status, problem);
            assert!(matches!(&error, LogError::Store(StoreError::Away(why)) if why.contains(word)), "{error}");
        }
    }
}
