//! A virtual host of one's own on the RabbitMQ that all tests share.

use std::time::Duration;

use reqwest::{Client, Method, Url};
use tokio::runtime;
use uuid::Uuid;

use crate::variable;

/// The broker that all tests share, such as `amqp://guest:guest@127.0.0.1:25672`.
const URL: &str = "DOCKET_TEST_RABBITMQ_URL";
/// Its management interface, such as `http://guest:guest@127.0.0.1:15672`.
const API: &str = "DOCKET_TEST_RABBITMQ_API";

const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A virtual host, with whatever is declared in it: it goes with this.
#[derive(Debug)]
pub struct RabbitVhost {
    uri: String,
    name: String,
}

impl RabbitVhost {
    /// One that nobody else has.
    ///
    /// # Panics
    /// When no broker is named, or it does not make one.
    #[expect(clippy::new_without_default, reason = "it is another one each time")]
    #[track_caller]
    pub fn new() -> Self {
        let name = format!("t_{}", Uuid::now_v7().simple());
        let mut uri = Url::parse(&variable(URL)).unwrap_or_else(|error| panic!("{URL}: {error}"));
        uri.set_path(&name);
        let user = uri.username().to_owned();
        ask(Method::PUT, &format!("vhosts/{name}"), "");
        let everything = r#"{"configure":".*","write":".*","read":".*"}"#;
        ask(Method::PUT, &format!("permissions/{name}/{user}"), everything);
        Self { uri: uri.into(), name }
    }

    /// The broker, and this virtual host of it.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for RabbitVhost {
    fn drop(&mut self) {
        let path = format!("vhosts/{}", self.name);
        // What is left over is only rubbish, and another panic while one unwinds would end everything.
        drop(std::thread::spawn(move || ask(Method::DELETE, &path, "")).join());
    }
}

/// Asks the management interface for a change, on a thread and a runtime of its own: a test's runtime may be the one that
/// waits for it.
///
/// # Panics
/// When it is not done.
#[track_caller]
fn ask(method: Method, path: &str, body: &'static str) {
    let api = variable(API);
    let url = format!("{}/api/{path}", api.trim_end_matches('/'));
    let asked = std::thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        runtime.block_on(changed(method, &url, body)).map_err(|error| error.without_url().to_string())
    });
    let done = asked.join().unwrap_or_else(|_| Err("a panic".to_owned()));
    done.unwrap_or_else(|error| panic!("RabbitMQ's management interface at {API} did not do {path}: {error}"));
}

async fn changed(method: Method, url: &str, body: &'static str) -> reqwest::Result<()> {
    let client = Client::builder().timeout(ANSWER_MAX).build()?;
    let mut url = Url::parse(url).unwrap_or_else(|error| panic!("{API}: {error}"));
    let (user, password) = (url.username().to_owned(), url.password().map(str::to_owned));
    // As a header: in an address it would be in every error.
    let _ = (url.set_username(""), url.set_password(None));
    let request = client.request(method, url).basic_auth(user, password).header("content-type", "application/json");
    request.body(body).send().await?.error_for_status().map(drop)
}
