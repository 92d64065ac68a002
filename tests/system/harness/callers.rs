//! Callers who move orders on while things go wrong: what they say and how often, what they were told, and whether all of
//! that, and nothing else, is so afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{Answer, Docket, Folder, Recorded, Request, TOTAL, WAIT_MAX, an_order, eventually};

/// Longer than a docket takes for an answer of any kind.
const PATIENCE: Duration = Duration::from_secs(12);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// Checks that are made at the same time.
const AT_ONCE: usize = 64;
/// What a 503 may be that a busy or cut off docket gives.
const NOT_DONE: [&str; 4] = ["store-away", "not-done", "contended", "overloaded"];

/// An order's steps, in order.
pub(crate) const LIFE: [Step; 4] = [Step::Create, Step::Pay, Step::Ship, Step::Deliver];

/// What can be done with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    AddItem,
    Pay,
    Ship,
    Deliver,
}

impl Step {
    /// The event that it causes.
    pub(crate) fn event(self) -> &'static str {
        match self {
            Self::Create => "order.created",
            Self::AddItem => ADDED,
            Self::Pay => "order.paid",
            Self::Ship => "order.shipped",
            Self::Deliver => "order.delivered",
        }
    }
}

/// The only event here that has no mail.
const ADDED: &str = "order.item_added";

/// A command and the key under which it can be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    step: Step,
    path: String,
    body: Value,
    key: String,
}

impl Said {
    /// That step of that order, which has no id yet when it is created. `reference` tells it from all others.
    pub(crate) fn new(step: Step, order: &str, reference: &str) -> Self {
        let (path, body) = match step {
            Step::Create => ("/orders".to_owned(), an_order(reference)),
            Step::AddItem => {
                (format!("/orders/{order}/items"), json!({"sku": "B-1", "quantity": 1, "unit_price": 100}))
            }
            Step::Pay => (format!("/orders/{order}/pay"), json!({"amount": TOTAL, "reference": reference})),
            Step::Ship => (format!("/orders/{order}/ship"), json!({"carrier": "DHL", "tracking_number": reference})),
            Step::Deliver => (format!("/orders/{order}/deliver"), json!({})),
        };
        Self { step, path, body, key: format!("{step:?}-{reference}") }
    }

    /// To be said to that docket.
    pub(crate) fn to(&self, docket: &Docket) -> Request {
        docket.post(&self.path, &self.body).key(&self.key)
    }
}

/// Commands that were acknowledged, in the order of their answers.
pub(crate) type Acknowledged = Vec<(Said, Answer)>;

/// Whatever was acknowledged stands as it was acknowledged.
pub(crate) async fn assert_kept(docket: &Docket, acknowledged: &[(Said, Answer)]) {
    let checks = acknowledged.iter().map(|(said, answer)| async move {
        let path = format!("/orders/{}?version={}", answer.id(), answer.version());
        let kept = readable(docket, &path).await;
        assert_eq!((kept.status, &kept.body), (StatusCode::OK, &answer.body), "{said:?} was acknowledged");
    });
    futures_util::stream::iter(checks).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

/// What is read there, once the store can be read: a busy machine may take longer than its deadlines. A docket that was
/// frozen may close a connection that was open meanwhile.
async fn readable(docket: &Docket, path: &str) -> Answer {
    let mut read = None;
    eventually("it can be read", async || {
        let answer = docket.get(path).send().await.ok();
        read = answer.filter(|answer| answer.status != StatusCode::SERVICE_UNAVAILABLE);
        read.is_some()
    })
    .await;
    read.expect("an answer")
}

/// The types of each order's events, in order.
pub(crate) type Events = BTreeMap<String, Vec<String>>;

/// What happened to each order, as it is stored.
pub(crate) async fn stored_events(folder: &Folder) -> Events {
    let mut events = Events::new();
    for commit in folder.commits().await {
        let types = commit.envelopes().map(|event| event.event_type.clone());
        events.entry(commit.key().order.to_string()).or_default().extend(types);
    }
    events
}

/// How often each mail has come, by its `Message-ID`.
pub(crate) fn mails(folder: &Folder) -> BTreeMap<String, usize> {
    let mut mails = BTreeMap::new();
    for mail in folder.mails() {
        let id = mail.lines().find_map(|line| line.strip_prefix("Message-ID: ")).expect("a Message-ID");
        *mails.entry(id.to_owned()).or_default() += 1;
    }
    mails
}

/// The subscriber with that data has recorded one mail for each event of those orders that has one and has performed it,
/// and each has come.
pub(crate) async fn assert_mailed(folder: &Folder, orders: &Folder) {
    let expected: Vec<Recorded> = stored_events(orders)
        .await
        .iter()
        .flat_map(|(order, events)| (1..).zip(events).map(move |(version, event)| (order, version, event)))
        .filter(|(_, _, event)| *event != ADDED)
        .map(|(order, version, _)| (order.clone(), version))
        .map(|(order, version)| Recorded { order, version, index: 0, outcome: Some("performed".to_owned()) })
        .collect();
    assert_same("mails recorded", &folder.recorded().await, &expected);
    // A mail's id begins with that of its event.
    let events = orders.commits().await;
    let events = events.iter().flat_map(|commit| commit.envelopes()).filter(|event| event.event_type != ADDED);
    let mailed: Vec<String> = mails(folder).into_keys().collect();
    let mailed = mailed.iter().map(|id| id.trim_start_matches('<').split('.').next().unwrap_or_default().to_owned());
    let (mut mailed, mut events): (Vec<String>, Vec<String>) =
        (mailed.collect(), events.map(|it| it.id.to_string()).collect());
    mailed.sort();
    events.sort();
    assert_same("events of the mails that came", &mailed, &events);
}

/// Says what differs: neither is short.
#[track_caller]
fn assert_same<T: PartialEq + std::fmt::Debug>(what: &str, are: &[T], should: &[T]) {
    let extra: Vec<_> = are.iter().filter(|it| !should.contains(it)).collect();
    let missing: Vec<_> = should.iter().filter(|it| !are.contains(it)).collect();
    assert!(are == should, "{what}: too many {extra:?}, missing {missing:?}");
}

/// Callers of one or more dockets. Each asks them in turn, and repeats a command with its key until it has an answer that
/// is final.
pub(crate) struct Callers<'a> {
    dockets: &'a [Docket],
    patience: Duration,
    told: Mutex<Told>,
    stopped: AtomicBool,
    next: AtomicUsize,
}

/// What callers were told.
#[derive(Default)]
pub(crate) struct Told {
    /// What was done.
    pub(crate) acknowledged: Acknowledged,
    /// How long each 503 took.
    pub(crate) refused: Vec<Duration>,
    /// How often it was said that the outcome is unknown.
    pub(crate) unknown: usize,
    /// Commands that were certainly not done, and not repeated.
    pub(crate) given_up: usize,
}

impl<'a> Callers<'a> {
    pub(crate) fn new(dockets: &'a [Docket]) -> Self {
        let (stopped, next) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { dockets, patience: PATIENCE, told: Mutex::default(), stopped, next }
    }

    /// Who gives no answer for so long is taken for gone.
    pub(crate) fn patient_for(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// So many callers place orders and move each on to its end, until they are stopped. After each step the order is read
    /// at the next docket. Every second caller leaves a command that was certainly not done.
    pub(crate) async fn write(&self, callers: usize) {
        join_all((0..callers).map(|caller| self.write_alone(caller))).await;
    }

    async fn write_alone(&self, caller: usize) {
        for n in 0.. {
            let reference = format!("{caller}-{n}");
            let mut order = String::new();
            for step in LIFE {
                if self.is_stopped() {
                    return;
                }
                let said = Said::new(step, &order, &reference);
                let Some(answer) = self.say(&said, caller % 2 == 1).await else { break };
                order = answer.id();
                self.read_back(&answer).await;
            }
        }
    }

    /// So many callers add to the same order until they are stopped.
    pub(crate) async fn crowd(&self, order: &str, callers: usize) {
        let adding = (0..callers).map(|caller| async move {
            for n in 0.. {
                if self.is_stopped() {
                    return;
                }
                let said = Said::new(Step::AddItem, order, &format!("crowd-{caller}-{n}"));
                let answer = self.say(&said, false).await.expect("it is repeated");
                let Some(read) = self.read(order).await else { continue };
                assert!(read.version() >= answer.version(), "stale: {read:?} after {answer:?}");
            }
        });
        join_all(adding).await;
    }

    /// Says it to one docket after the other until the answer is final; `None`: it was certainly not done, and whoever
    /// `leaves` it then does not repeat it.
    pub(crate) async fn say(&self, said: &Said, leaves: bool) -> Option<Answer> {
        let (began, mut may_be_done) = (Instant::now(), false);
        loop {
            assert!(began.elapsed() < WAIT_MAX, "{said:?} has no final answer");
            let asked = Instant::now();
            match timeout(self.patience, said.to(self.next()).send()).await {
                Ok(Ok(answer)) if answer.status.is_success() => {
                    self.told().acknowledged.push((said.clone(), answer.clone()));
                    return Some(answer);
                }
                Ok(Ok(answer)) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                    assert!(NOT_DONE.contains(&answer.problem()), "{said:?}: {}", answer.body);
                    assert!(answer.header("retry-after").is_some(), "{said:?}: {answer:?}");
                    self.told().refused.push(asked.elapsed());
                    if leaves && !may_be_done {
                        self.told().given_up += 1;
                        return None;
                    }
                }
                // It is still unknown.
                Ok(Ok(answer)) if answer.problem() == "key-in-progress" => may_be_done = true,
                // Frozen before it had read all of it, a docket does none of it.
                Ok(Ok(answer)) if answer.status == StatusCode::REQUEST_TIMEOUT => {}
                Ok(Ok(answer)) => {
                    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{said:?}: {}", answer.body);
                    self.told().unknown += 1;
                    may_be_done = true;
                }
                // Gone, or it does not answer.
                Ok(Err(_)) | Err(_) => may_be_done = true,
            }
            sleep(PAUSE).await;
        }
    }

    /// Whoever answers, says what the last answer said. Nobody else writes to that order.
    async fn read_back(&self, answer: &Answer) {
        if let Some(read) = self.read(&answer.id()).await {
            assert_eq!((&read.body, read.header("etag")), (&answer.body, answer.header("etag")), "stale");
        }
    }

    /// The order, at the next docket, unless that one does not answer or cannot look.
    async fn read(&self, order: &str) -> Option<Answer> {
        let read = timeout(self.patience, self.next().get(&format!("/orders/{order}")).send()).await.ok()?.ok()?;
        if read.status == StatusCode::SERVICE_UNAVAILABLE {
            return None;
        }
        assert_eq!(read.status, StatusCode::OK, "{order}: {}", read.body);
        Some(read)
    }

    /// No more commands; what is under way is brought to its end.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Waits until so many more commands are acknowledged.
    #[track_caller]
    pub(crate) fn go_on(&self, more: usize) -> impl Future<Output = ()> {
        let until = self.told().acknowledged.len() + more;
        eventually("commands are done", async move || self.told().acknowledged.len() >= until)
    }

    /// Waits until so many more are refused.
    #[track_caller]
    pub(crate) fn are_refused(&self, more: usize) -> impl Future<Output = ()> {
        let until = self.told().refused.len() + more;
        eventually("commands are refused", async move || self.told().refused.len() >= until)
    }

    /// What they were told so far.
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What they were told in all.
    pub(crate) fn into_told(self) -> Told {
        self.told.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> &'a Docket {
        &self.dockets[self.next.fetch_add(1, Ordering::Relaxed) % self.dockets.len()]
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

impl Told {
    /// What happened to each order, if what was acknowledged is all that happened.
    pub(crate) fn events(&self) -> Events {
        let mut events: BTreeMap<String, BTreeMap<i64, &str>> = BTreeMap::new();
        for (said, answer) in &self.acknowledged {
            let before = events.entry(answer.id()).or_default().insert(answer.version(), said.step.event());
            assert!(before.is_none(), "{said:?} was given a version that another had: {answer:?}");
        }
        let types = |events: BTreeMap<i64, &str>| events.into_values().map(str::to_owned).collect();
        for (order, events) in &events {
            let versions: Vec<i64> = events.keys().copied().collect();
            assert_eq!(versions, (1..).take(events.len()).collect::<Vec<i64>>(), "order {order} has gaps");
        }
        events.into_iter().map(|(order, events)| (order, types(events))).collect()
    }

    /// The newest version that anybody was told of, of each order of which somebody was told since `first`.
    pub(crate) fn versions_since(&self, first: usize) -> BTreeMap<String, i64> {
        let told = self.acknowledged[first..].iter();
        let mut versions = BTreeMap::new();
        for (_, answer) in told {
            let version = versions.entry(answer.id()).or_default();
            *version = answer.version().max(*version);
        }
        versions
    }

    /// All of this holds, and nothing else happened: everything that was acknowledged is there as it was acknowledged,
    /// what was unknown happened once or not at all, what was refused did not happen, and each event has its mail. Ends
    /// the dockets.
    pub(crate) async fn assert_true(&self, folder: &Folder, dockets: Vec<Docket>) {
        assert_kept(&dockets[0], &self.acknowledged).await;
        folder.settled(&dockets.iter().collect::<Vec<_>>()).await;
        for docket in dockets {
            assert_eq!(docket.stop().await, Some(0));
        }
        let (stored, told) = (stored_events(folder).await, self.events());
        let orders = |events: &Events| events.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(orders(&stored), orders(&told), "orders that nobody knows, or too few");
        assert_eq!(stored, told);
        assert_mailed(folder, folder).await;
    }
}
