//! `/api/dead-letters`: what subscribers hold and somebody must decide about; look at it, let it be tried again, let it go.
//!
//! Looks into the subscribers' stores of this process, whether or not they are at work here. Decides nothing about
//! letters: that is `actors/src/subscriber/letters.rs`.

mod query;
mod view;

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use actors::order::error::FieldError;
use actors::order::{OrderId, Version};
use actors::subscriber::letters::{
    Decision, LetterError, LetterId, Letters, PER_SECOND_MAX, REASON_CHARS_MAX, RetryAll, SetAside, Unreadable,
};
use serde::Deserialize;
use tokio::time::Instant;

use super::parameters::parameters;
use super::problem::{self, Problem};
use super::{Service, body, error, guard, headers, subscribers};
use crate::auth::Scope;
use query::{Asked, Wanted};
use view::{DiscardView, DryRunView, LetterView, ListedView, RetriedView, ShownView, TrialView, TriedView};

/// How long a request for many letters goes on before it says how far it came.
const MANY_WITHIN: Duration = Duration::from_secs(60);
const PER_SECOND: u32 = 100;

/// How a letter is retried.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Retry {
    #[serde(default)]
    dry_run: bool,
}

/// Which event is tried.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Try {
    /// The next one without it.
    version: Option<u32>,
}

/// Which letters are retried, and how.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct RetryMany {
    subscriber: Option<String>,
    r#type: Option<String>,
    group: Option<String>,
    state: Option<String>,
    from: Option<String>,
    to: Option<String>,
    /// As many as there are: what was shown is what is done.
    count: u64,
    #[serde(default = "per_second")]
    per_second: u32,
    #[serde(default)]
    dry_run: bool,
}

fn per_second() -> u32 {
    PER_SECOND
}

/// Why a letter is let go.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Discard {
    reason: String,
}

/// A letter as it stands in a path.
enum Named {
    Held(LetterId),
    /// A message at the broker, by its id.
    Message(String),
}

/// A page of dead letters, with what all of them add up to.
pub(super) async fn list(service: Data<Service>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let Asked { wanted, after, limit } = Asked::of(request.query_string())?;
    let letters = selected(&service, &wanted)?;
    // What is left of the time is the broker's and the log's, which may fail without a word of what was found.
    let until = Instant::now() + service.limits.answer_timeout / 2;
    let listing = Letters::list(&letters, service.set_aside.as_deref(), &wanted.filter, (after, limit), until);
    let listed = in_time(&service, listing).await?;
    Ok(HttpResponse::Ok().json(ListedView::new(listed, &letters)))
}

/// A dead letter with everything that is known of it.
pub(super) async fn show(service: Data<Service>, path: Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (letters, named) = named(&service, path)?;
    let shown = match named {
        Named::Held(id) => ShownView::held(in_time(&service, letters.show(id)).await?),
        Named::Message(id) => ShownView::unreadable(letters.subscriber(), message(&service, &letters, &id).await?),
    };
    Ok(HttpResponse::Ok().json(shown))
}

/// Lets a dead letter be tried again, or says what that would come to.
pub(super) async fn retry(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
    path: Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    nothing_asked(&request)?;
    let (letters, named) = named(&service, path)?;
    let Retry { dry_run } = body::json_or_nothing(&request, payload, service.limits.body_timeout).await?;
    if !dry_run {
        guard::require(&request, Scope::OpsWrite)?;
    }
    let id = held(&service, &letters, named).await?;
    if dry_run {
        let run = letters.dry_run(id).await.map_err(|error| failed(letters.subscriber(), error))?;
        return Ok(HttpResponse::Ok().json(DryRunView::of(run)));
    }
    let letter = to_its_end(&service, letters.subscriber(), letters.retry(id)).await?;
    Ok(HttpResponse::Ok().json(LetterView::held(&letter)))
}

/// Says what an event would come to, held or not.
pub(super) async fn trial(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
    path: Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    nothing_asked(&request)?;
    let (name, order) = path.into_inner();
    let letters = of_subscriber(&service, &name)?;
    let order: OrderId = order.parse().map_err(|_| error::no_such_order())?;
    let Try { version } = body::json_or_nothing(&request, payload, service.limits.body_timeout).await?;
    if version == Some(0) {
        let reason = "must be a whole number from 1".to_owned();
        return Err(error::invalid(vec![FieldError { field: "version".to_owned(), reason }]));
    }
    let trial = letters.trial(order, version.map(Version)).await;
    let trial = trial.map_err(|error| failed(letters.subscriber(), error))?;
    Ok(HttpResponse::Ok().json(TrialView::of(order, trial)))
}

/// Lets many of them be tried again, or says what that would come to.
pub(super) async fn retry_many(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    nothing_asked(&request)?;
    let many: RetryMany = body::json(&request, payload, service.limits.body_timeout).await?;
    let RetryMany { subscriber, r#type, group, state, from, to, count, per_second, dry_run } = many;
    if !dry_run {
        guard::require(&request, Scope::OpsWrite)?;
    }
    if !(1..=PER_SECOND_MAX).contains(&per_second) {
        let reason = format!("must be a whole number from 1 to {PER_SECOND_MAX}");
        return Err(error::invalid(vec![FieldError { field: "per_second".to_owned(), reason }]));
    }
    let wanted = Wanted::of(subscriber, r#type, group.as_deref(), state.as_deref(), from.as_deref(), to.as_deref())?;
    let letters = selected(&service, &wanted)?;
    let until = Instant::now() + MANY_WITHIN;
    let asked = RetryAll { filter: wanted.filter, count, per_second, until };
    if dry_run {
        let tried = Letters::try_all(&letters, &asked).await.map_err(|error| failed("", error))?;
        return Ok(HttpResponse::Ok().json(TriedView::of(tried)));
    }
    let retried = Letters::retry_all(&letters, &asked).await.map_err(|error| failed("", error))?;
    Ok(HttpResponse::Ok().json(RetriedView::of(retried, per_second)))
}

/// Lets a dead letter go.
pub(super) async fn discard(
    service: Data<Service>,
    request: HttpRequest,
    payload: Payload,
    path: Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    nothing_asked(&request)?;
    let (letters, named) = named(&service, path)?;
    let Discard { reason } = body::json(&request, payload, service.limits.body_timeout).await?;
    let reason = checked(&reason)?;
    let id = held(&service, &letters, named).await?;
    let by = headers::origin(&request).authid.into_owned();
    let decision = Decision { reason, by, at: letters.now() };
    let discard = to_its_end(&service, letters.subscriber(), letters.discard(id, &decision)).await?;
    Ok(HttpResponse::Ok().json(DiscardView::of(letters.subscriber(), discard)))
}

/// What a person wrote, without blanks around it.
fn checked(reason: &str) -> Result<String, Problem> {
    let reason = reason.trim();
    let right = (1..=REASON_CHARS_MAX).contains(&reason.chars().count()) && !reason.chars().any(char::is_control);
    right.then(|| reason.to_owned()).ok_or_else(|| {
        let reason = format!("must have 1 to {REASON_CHARS_MAX} characters, and no control characters");
        error::invalid(vec![FieldError { field: "reason".to_owned(), reason }])
    })
}

/// What is asked of a letter stands in the body: `?dry_run=true` must not do it.
fn nothing_asked(request: &HttpRequest) -> Result<(), Problem> {
    parameters(request.query_string(), []).map(|[]| ())
}

/// The letters of those subscribers.
fn selected(service: &Service, wanted: &Wanted) -> Result<Vec<Letters>, Problem> {
    match &wanted.subscriber {
        None => Ok(service.subscribers.iter().map(|subscriber| subscriber.letters().clone()).collect()),
        Some(name) => Ok(vec![of_subscriber(service, name)?]),
    }
}

fn of_subscriber(service: &Service, name: &str) -> Result<Letters, Problem> {
    Ok(subscribers::named(service, name)?.letters().clone())
}

fn named(service: &Service, path: Path<(String, String)>) -> Result<(Letters, Named), Problem> {
    let (name, id) = path.into_inner();
    let letters = of_subscriber(service, &name)?;
    if id.starts_with("message-") {
        return Ok((letters, Named::Message(id)));
    }
    let no_letter = |error| Problem::not_found(format!("There is no such dead letter: {error}."));
    Ok((letters, Named::Held(id.parse().map_err(no_letter)?)))
}

/// What an operator may act on.
async fn held(service: &Service, letters: &Letters, named: Named) -> Result<LetterId, Problem> {
    match named {
        Named::Held(id) => Ok(id),
        Named::Message(id) => {
            message(service, letters, &id).await?;
            Err(Problem::new(problem::NOT_RETRYABLE, problem::NOT_RETRYABLE.meaning))
        }
    }
}

async fn message(service: &Service, letters: &Letters, id: &str) -> Result<Unreadable, Problem> {
    let gone = || Problem::not_found("There is no such message any more: it was read after all, or deleted.");
    let set_aside: &Arc<dyn SetAside> = service.set_aside.as_ref().ok_or_else(gone)?;
    let messages = letters.unreadable(&**set_aside).await.map_err(|trouble| {
        tracing::warn!(subscriber = letters.subscriber(), trouble, "what nobody can read cannot be shown");
        error::store_away()
    })?;
    messages.into_iter().find(|message| message.id == id).ok_or_else(gone)
}

/// Waits for the stores as long as for any answer: nothing is changed by giving up.
async fn in_time<T>(service: &Service, asked: impl Future<Output = Result<T, LetterError>>) -> Result<T, Problem> {
    match tokio::time::timeout(service.limits.answer_timeout, asked).await {
        Ok(answer) => answer.map_err(|error| failed("", error)),
        Err(_) => Err(error::store_away()),
    }
}

/// The same for what changes something: when the time is over nobody knows.
async fn to_its_end<T>(
    service: &Service,
    subscriber: &str,
    asked: impl Future<Output = Result<T, LetterError>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(service.limits.answer_timeout, asked).await {
        Ok(answer) => answer.map_err(|error| failed(subscriber, error)),
        Err(_) => Err(error::letter_outcome_unknown()),
    }
}

/// Whoever asked learns what it means for him, and the log why.
fn failed(subscriber: &str, error: LetterError) -> Problem {
    match &error {
        LetterError::Store(_) | LetterError::Log(_) | LetterError::Contended => {
            tracing::warn!(subscriber, %error, "dead letters cannot be shown or changed");
        }
        LetterError::Refused(_)
        | LetterError::Unknown(_)
        | LetterError::CountDiffers { .. }
        | LetterError::TooManyHeld
        | LetterError::TooMany { .. } => {}
    }
    error.into()
}
