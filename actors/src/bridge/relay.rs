//! The relay: follows the log and publishes it to the broker, in its order, again and again until the broker has taken
//! it. Its checkpoint never passes what the broker has not taken, so a relay that is killed, cut off or frozen anywhere
//! publishes some of it twice, and skips nothing.
//!
//! Where several processes share the store one of them relays, and the others stand by and ask about once a second.
//! Whoever is superseded stops and stands by, too: no failure. An error of the broker or of the store is one: the
//! supervisor begins the job anew, after a backoff, for ever. Something at the broker that is not what docket declares is
//! said, and tried again a minute later: only people can mend it. No order waits for any of this.

mod saves;
mod source;
mod status;
mod work;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

pub use self::status::{RelayHandle, RelayState, RelayStatus};

use self::saves::Saves;
use self::source::Source;
use self::work::{Ended, Work};
use crate::broker::{Broker, BrokerError};
use crate::checkpoint::{Begun, Checkpoint, CheckpointError, Checkpoints};
use crate::clock::{Clock, Timestamp};
use crate::inbox::Term;
use crate::log::{Follow, From, Log, LogError};
use crate::supervisor::{Backoff, Child, Failure, Handle, Intensity, Limits, Node, Policy};

/// Whoever stands by asks for the lease at least that often, and a little later at random: it may have been released.
const STANDBY_MAX: Duration = Duration::from_secs(1);
/// And not more often than that: the lease may be about to end.
const STANDBY_MIN: Duration = Duration::from_millis(50);
/// How long what is being published may go on when the process ends.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// How long storing the last checkpoint, and giving the lease back, may take at the end.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);
/// How long a broker is left alone on which something is not as it must be.
const MISMATCH_RETRY: Duration = Duration::from_secs(60);
/// After a lost position all is published that was recorded so long before the last checkpoint, or later: clocks of
/// several machines differ.
const OVERLAP: Duration = Duration::from_secs(60 * 60);

/// What the relay runs on.
#[derive(Clone)]
pub struct Ports {
    /// What happened.
    pub log: Arc<dyn Log>,
    /// Where it keeps its place.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// To whom it publishes.
    pub broker: Arc<dyn Broker>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The limits of the relay. Every one is a configuration key, `rabbitmq.…`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Most events on their way to the broker without its word that it has taken them (`publish_max`).
    pub publish_max: usize,
    /// How long the store, or the broker, may take for an answer (`answer_timeout_ms`).
    pub answer_within: Duration,
    /// Longest pause before the broker or the store is tried again (`retry_max_ms`).
    pub retry_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let (answer_within, retry_max) = (Duration::from_secs(10), Duration::from_secs(10));
        Self { publish_max: 1_024, answer_within, retry_max }
    }
}

/// The relay as a child of a supervisor, restarted for ever. Also its handle, which is good from now on.
pub fn child(ports: Ports, settings: Settings) -> (Child, RelayHandle) {
    let (status, watched) = watch::channel(RelayStatus::starting());
    let policy = policy(&settings);
    let child = Child::task("relay", "relay", move |node: &Node| {
        let node = node.clone();
        move |handle: &Handle| {
            let relay = Relay {
                ports: ports.clone(),
                settings: settings.clone(),
                node: node.clone(),
                handle: handle.clone(),
                status: status.clone(),
            };
            async move { relay.run().await }.boxed_local()
        }
    });
    let limits = Limits { stuck_after: None, stop_within: LEAVE_WITHIN + RELEASE_WITHIN * 3 };
    (child.isolated().policy(policy).limits(limits), RelayHandle::new(watched))
}

/// For ever, as a connection wants it.
fn policy(settings: &Settings) -> Policy {
    let default = Policy::default();
    let backoff = Backoff { max: settings.retry_max, ..default.backoff };
    Policy { intensity: Intensity::UNLIMITED, backoff, ..default }
}

/// One life of the relay.
struct Relay {
    ports: Ports,
    settings: Settings,
    node: Node,
    handle: Handle,
    status: watch::Sender<RelayStatus>,
}

/// Why a life ends early.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the store is away: no answer within {0:?}")]
    Late(Duration),
}

impl Relay {
    async fn run(&self) -> Result<(), Failure> {
        self.status.send_modify(RelayStatus::begin);
        loop {
            match self.relay().await {
                Err(trouble @ Trouble::Broker(BrokerError::Mismatch(_))) => {
                    if self.status.send_if_modified(|status| status.fail(&trouble)) {
                        tracing::error!("nothing can be published: {trouble}");
                    }
                    self.pause(MISMATCH_RETRY).await;
                }
                Err(trouble) => {
                    self.status.send_if_modified(|status| status.fail(&trouble));
                    return Err(Failure::error(trouble));
                }
                Ok(()) => {
                    self.status.send_modify(|status| status.rest(RelayState::Stopped));
                    return Ok(());
                }
            }
        }
    }

    /// Until it is asked to stop.
    async fn relay(&self) -> Result<(), Trouble> {
        while let Some((begun, asked_at)) = self.begin().await? {
            match self.work(begun, asked_at).await? {
                Ended::Asked => return Ok(()),
                Ended::Superseded => {
                    tracing::info!("another process relays now: this one stands by");
                    self.status.send_modify(|status| status.rest(RelayState::Starting));
                    // Not at once: should two who cannot see each other take the term from one another, they do not spin.
                    self.pause(STANDBY_MAX.mul_f64(self.node.chance() / 4.0)).await;
                }
            }
        }
        Ok(())
    }

    /// Waits for a term. `None`: it was asked to stop.
    async fn begin(&self) -> Result<Option<(Begun, Instant)>, Trouble> {
        while !self.is_stopping() {
            let asked_at = Instant::now();
            match self.answered(self.ports.checkpoints.begin()).await? {
                Ok(begun) if self.is_stopping() => self.release(begun.term).await,
                Ok(begun) => return Ok(Some((begun, asked_at))),
                Err(CheckpointError::Held { by, ends_in }) => self.stand_by(&by, ends_in).await,
                Err(error @ CheckpointError::Store(_)) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    async fn stand_by(&self, by: &str, ends_in: Duration) {
        let news = self.status.send_if_modified(|status| status.stand_by(by));
        if news {
            tracing::info!(active_in = by, "the relay is active elsewhere and stands by here");
        }
        let spread = STANDBY_MAX.mul_f64(self.node.chance() / 4.0);
        self.pause(ends_in.clamp(STANDBY_MIN, STANDBY_MAX) + spread).await;
    }

    /// One term.
    async fn work(&self, begun: Begun, asked_at: Instant) -> Result<Ended, Trouble> {
        let (source, checkpoint) = self.open(begun.checkpoint).await?;
        let saves = Saves::new(begun.lease, checkpoint.recorded_at, asked_at);
        let mut work = Work::new(self, begun.term, source, saves);
        if !work.save(Some(checkpoint)).await? {
            return Ok(Ended::Superseded);
        }
        tracing::debug!(term = begun.term.0, "the relay is active here");
        let ended = work.run().await;
        work.leave(&ended).await;
        ended
    }

    /// Opens the log where it was left; the first relay ever at its present end. Gives the checkpoint that holds so far.
    async fn open(&self, last: Option<Checkpoint>) -> Result<(Source, Checkpoint), Trouble> {
        let Some(last) = last else {
            let follow = self.follow(From::Now).await?;
            let checkpoint = Checkpoint { position: follow.position(), recorded_at: self.ports.clock.now() };
            tracing::info!("nothing was ever published: the relay begins at the present end of the log");
            return Ok((Source::following(follow), checkpoint));
        };
        match self.follow(From::Position(last.position.clone())).await {
            Ok(follow) => Ok((Source::following(follow), last)),
            Err(Trouble::Log(LogError::NoPosition(why))) => {
                let since = before(last.recorded_at, OVERLAP);
                tracing::error!(%why, %since, "the relay's position in the log is lost: all since then is published again");
                let follow = self.follow(From::Now).await?;
                Ok((Source::scanning(follow, self.ports.log.clone(), since), last))
            }
            Err(trouble) => Err(trouble),
        }
    }

    async fn follow(&self, from: From) -> Result<Box<dyn Follow>, Trouble> {
        Ok(self.answered(self.ports.log.follow(from)).await??)
    }

    async fn release(&self, term: Term) {
        match timeout(RELEASE_WITHIN, self.ports.checkpoints.release(term)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => tracing::info!("the relay's lease ends by itself"),
        }
    }

    async fn answered<T>(&self, answer: impl Future<Output = T>) -> Result<T, Trouble> {
        let within = self.settings.answer_within;
        timeout(within, answer).await.map_err(|_| Trouble::Late(within))
    }

    /// Waits, or until it is asked to stop.
    async fn pause(&self, wait: Duration) {
        tokio::select! {
            biased;
            () = sleep(wait) => {}
            () = self.handle.stop_requested() => {}
        }
    }

    fn is_stopping(&self) -> bool {
        self.handle.stop_requested().now_or_never().is_some()
    }
}

fn before(moment: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(moment.as_millis().saturating_sub(by))
}
