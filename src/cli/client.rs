//! Asks a running docket, and says in words when it does not answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use actors::event_store::StoreError;
use reqwest::{Client, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::CommandError;
use crate::auth::Secret;
use crate::history::wire::{About, FORMAT};
use crate::history::{Client as HistoryClient, RemoteLog};
use crate::http::NO_SUCH_PATH;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Which docket, and how to print its answer.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// The operators' address of a running docket; else the configuration's ops.bind.
    #[arg(long, value_name = "URL", value_parser = address)]
    url: Option<Url>,
    /// That configuration; else config.toml in the working directory, if there is one.
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// A file that holds a key of that docket; else the environment variable DOCKET_KEY.
    #[arg(long, value_name = "PATH", conflicts_with = "key")]
    key_file: Option<PathBuf>,
    /// The key itself, which others on this machine can then see: rather use DOCKET_KEY or --key-file.
    #[arg(long, value_name = "KEY")]
    key: Option<Secret>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// The environment variable that holds a key.
const KEY: &str = "DOCKET_KEY";

impl Server {
    /// That docket.
    pub(super) fn docket(&self) -> Result<Docket, CommandError> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => address_of(super::load(self.config.as_deref())?.ops.bind)?,
        };
        Ok(Docket { url, key: self.key()? })
    }

    /// The key to show; empty when nobody gave one.
    fn key(&self) -> Result<Secret, CommandError> {
        let (key, from) = match (&self.key, &self.key_file) {
            (Some(key), _) => (key.clone(), "--key".to_owned()),
            (None, Some(path)) => {
                let from = format!("--key-file {}", path.display());
                let unreadable = |error| CommandError::wrong(format!("cannot read {from}: {error}"));
                (Secret::from(std::fs::read_to_string(path).map_err(unreadable)?.trim().to_owned()), from)
            }
            (None, None) => match std::env::var(KEY) {
                Ok(key) if !key.is_empty() => (Secret::from(key), KEY.to_owned()),
                Ok(_) | Err(_) => return Ok(Secret::default()),
            },
        };
        if key.is_key() { Ok(key) } else { Err(CommandError::wrong(format!("{from} holds no key: {KEY_FORM}"))) }
    }
}

const KEY_FORM: &str = "it must be one as docket key new prints it, docket_ and 64 hexadecimal digits";

/// Where a docket on this machine that is bound to `bind` is asked.
fn address_of(bind: SocketAddr) -> Result<Url, CommandError> {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    if bind.port() == 0 {
        return Err(CommandError::wrong("ops.bind leaves the port open: say --url"));
    }
    address(&format!("http://{}", SocketAddr::new(ip, bind.port()))).map_err(CommandError::wrong)
}

fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.has_host());
    url.ok_or_else(|| "must be an address such as http://127.0.0.1:8081".to_owned())
}

/// A docket that is asked.
pub(super) struct Docket {
    url: Url,
    key: Secret,
}

#[derive(Deserialize)]
struct Problem {
    r#type: String,
    title: String,
    detail: String,
    correlation_id: String,
    #[serde(default)]
    errors: Vec<WrongField>,
}

#[derive(Deserialize)]
struct WrongField {
    field: String,
    reason: String,
}

impl Problem {
    fn in_words(&self) -> String {
        let Self { title, detail, correlation_id, .. } = self;
        let fields: String = self.errors.iter().map(|wrong| format!(" {} {}.", wrong.field, wrong.reason)).collect();
        format!("{title}: {detail}{fields} (correlation id {correlation_id})")
    }
}

impl Docket {
    /// What `path` (with its query) answers.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        let answer = self.answer(client()?.get(self.at(path)?)).await?;
        answer.json().await.map_err(|error| self.broke_off(&error))
    }

    /// Its log, which it must have and let this key read.
    pub(super) async fn log(&self) -> Result<RemoteLog, CommandError> {
        let About { version, format } = self.get("history").await?;
        if format != FORMAT {
            return Err(CommandError::not_done(format!(
                "{} is docket {version} and gives its history in another form ({format}; this program reads {FORMAT})",
                self.url
            )));
        }
        Ok(HistoryClient::new(self.url.as_str(), self.key.expose()).map_err(CommandError::wrong)?.log())
    }

    /// What `path` answers within that time, be it good or bad news.
    pub(super) async fn look<T: DeserializeOwned>(&self, path: &str, within: Duration) -> Result<T, CommandError> {
        let answer = client()?.get(self.at(path)?).timeout(within).send().await;
        let answer = answer.map_err(|error| self.away(&error))?;
        answer.json().await.map_err(|error| self.broke_off(&error))
    }

    /// What `path` answers to a body, as text.
    pub(super) async fn post(&self, client: &Client, path: &str, body: Vec<u8>) -> Result<String, CommandError> {
        let answer = self.answer(client.post(self.at(path)?).body(body)).await?;
        answer.text().await.map_err(|error| self.broke_off(&error))
    }

    /// What `path` answers when it is told to do something.
    pub(super) async fn tell<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, CommandError> {
        let answer = self.answer(client()?.post(self.at(path)?).json(body)).await?;
        answer.json().await.map_err(|error| self.broke_off(&error))
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response, CommandError> {
        let request = if self.key.is_empty() { request } else { request.bearer_auth(self.key.expose()) };
        let answer = request.send().await.map_err(|error| self.away(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        match answer.json::<Problem>().await {
            Ok(problem) if problem.r#type.ends_with("/unauthorized") => Err(CommandError::not_let_in(self.unknown())),
            Ok(problem) if problem.r#type.ends_with("/forbidden") => {
                Err(CommandError::not_let_in(format!("{} does not let this key do that: {}", self.url, problem.detail)))
            }
            Ok(problem) if problem.detail == NO_SUCH_PATH => Err(CommandError::not_done(format!(
                "{} does not answer operators: --url must be the address of ops.bind",
                self.url
            ))),
            Ok(problem) if problem.r#type.ends_with("/malformed") || problem.r#type.ends_with("/invalid") => {
                Err(CommandError::wrong(problem.in_words()))
            }
            Ok(problem) => Err(CommandError::not_done(problem.in_words())),
            Err(_) => Err(CommandError::not_done(format!("{} answered {status}: is this a docket?", self.url))),
        }
    }

    fn unknown(&self) -> String {
        if self.key.is_empty() {
            return format!("{} wants a key: set {KEY}, or say --key-file. docket key new makes one.", self.url);
        }
        format!("{} does not know this key", self.url)
    }

    fn at(&self, path: &str) -> Result<Url, CommandError> {
        self.url.join(path).map_err(|error| CommandError::wrong(format!("--url {}: {error}", self.url)))
    }

    fn away(&self, error: &reqwest::Error) -> CommandError {
        let (url, cause) = (&self.url, innermost(error));
        CommandError::unreachable(format!("no docket answers at {url}: {cause}. Is it running? --url says where."))
    }

    fn broke_off(&self, error: &reqwest::Error) -> CommandError {
        CommandError::unreachable(format!("the answer of {} broke off: {}", self.url, innermost(error)))
    }
}

/// What becomes of a command whose docket no longer gives its log.
pub(super) fn no_log(error: StoreError) -> CommandError {
    match error {
        StoreError::Away(why) => CommandError::unreachable(why),
        StoreError::Damaged(_) | StoreError::Full(_) => CommandError::not_done(error.to_string()),
    }
}

/// A docket that is away for longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(120);
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Asks until there is an answer, or the docket has been away for two minutes.
pub(super) async fn patiently<T>(
    ask: impl AsyncFn() -> Result<T, StoreError>,
    say: impl Fn(&str),
) -> Result<T, CommandError> {
    let since = Instant::now();
    let mut said = String::new();
    loop {
        match ask().await {
            Err(StoreError::Away(why)) if since.elapsed() < PATIENCE => {
                if why != said {
                    say(&why);
                    said = why;
                }
                sleep(AGAIN_AFTER).await;
            }
            answer => return answer.map_err(no_log),
        }
    }
}

/// For one or more requests.
pub(super) fn client() -> Result<Client, CommandError> {
    let client = Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT).no_proxy().build();
    client.map_err(|error| CommandError::not_done(innermost(&error)))
}

/// Runs a command's requests to their end.
pub(super) fn block_on<T>(requests: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| CommandError::not_done(error.to_string()))?.block_on(requests)
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
