//! A connection as RabbitMQ and the driver have it, with what the driver leaves to us: a deadline for every wait, and an
//! end that leaves nothing behind.
//!
//! The driver reads each connection on a thread of its own, which ends with its socket and not before: while somebody
//! frozen holds the other side, or while the broker takes nothing, a polite close is never answered. So the socket is
//! ours as well, and whoever is done ends it.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::broker::BrokerError;
use futures_util::StreamExt;
use lapin::options::ConfirmSelectOptions;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, OwnedTLSConfig, TLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Settings;

/// How long a broker has to take leave of us.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A connection that is never mended. Dropped, it is closed, by force when the broker does not answer.
#[derive(Debug)]
pub(super) struct Link {
    answer_within: Duration,
    blocked: watch::Receiver<Option<String>>,
    /// Both are there until it is dropped.
    open: Option<(Connection, HangUp)>,
    events: JoinHandle<()>,
}

impl Link {
    /// Connects, under that name among the broker's connections.
    pub(super) async fn open(settings: &Settings, name: &str) -> Result<Self, BrokerError> {
        let mut uri = settings.uri.parse().map_err(|error| BrokerError::Away(format!("rabbitmq.uri: {error}")))?;
        uri.query.heartbeat = Some(settings.heartbeat_s);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| away("connect", &error))?;
        let hang_up = HangUp::default();
        let (line, connect_within) = (Arc::clone(&hang_up.0), settings.answer_within);
        // Its parameters have types of the driver's that only it can name.
        let connecting = Connection::connector(
            uri,
            runtime,
            async move |uri: AMQPUri, runtime| {
                let connecting = async {
                    // Only the socket at first, to have a hold on it before it is encrypted.
                    let plain = AMQPUri { scheme: AMQPScheme::AMQP, ..uri.clone() };
                    let stream = plain.connect_with_config_async(TLSConfig::default(), &runtime).await?;
                    if let AsyncTcpStream::Plain(socket) = &stream {
                        line.hold(TcpStream::from(socket.get_ref().as_fd().try_clone_to_owned()?))?;
                    }
                    match uri.scheme {
                        AMQPScheme::AMQP => Ok(stream),
                        AMQPScheme::AMQPS => {
                            stream.into_tls(&uri.authority.host, OwnedTLSConfig::default().as_ref()).await
                        }
                    }
                };
                let connected = timeout(connect_within, connecting).await;
                connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(lapin::Error::from)
            },
            properties,
        );
        let connection = answer(settings.answer_within, "connect", connecting).await?;
        let (said, blocked) = watch::channel(None);
        let events = tokio::spawn(watch_blocked(connection.events_listener(), said));
        Ok(Self { answer_within: settings.answer_within, blocked, open: Some((connection, hang_up)), events })
    }

    /// A channel.
    pub(super) async fn channel(&self) -> Result<Channel, BrokerError> {
        let Some((connection, _)) = &self.open else { return Err(lost()) };
        self.answer("open a channel", connection.create_channel()).await
    }

    /// A channel on which the broker says what it has taken.
    pub(super) async fn confirming_channel(&self) -> Result<Channel, BrokerError> {
        let channel = self.channel().await?;
        self.answer("confirm", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    /// Waits for an answer, but not for ever. `doing` says what for: "declare the queue …".
    pub(super) async fn answer<T>(
        &self,
        doing: &str,
        answer_to: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        answer(self.answer_within, doing, answer_to).await
    }

    pub(super) fn answer_within(&self) -> Duration {
        self.answer_within
    }

    /// Why the broker takes nothing now.
    pub(super) fn blocked(&self) -> &watch::Receiver<Option<String>> {
        &self.blocked
    }

    /// Whether it can still be used, as far as the driver knows.
    pub(super) fn is_alive(&self) -> bool {
        self.open.as_ref().is_some_and(|(connection, _)| connection.status().connected())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.events.abort();
        let Some((connection, hang_up)) = self.open.take() else { return };
        // Without a runtime the driver cannot close it either: then the socket ends at once.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // A broker that was not told only writes a warning into its log.
                drop(timeout(CLOSE_WITHIN, connection.close(200, "OK".into())).await);
                drop(connection);
                drop(hang_up);
            });
        }
    }
}

/// Why the broker takes nothing, as it says so.
async fn watch_blocked(events: impl StreamExt<Item = Event>, said: watch::Sender<Option<String>>) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        if let Event::ConnectionBlocked(reason) = event {
            said.send_replace(Some(reason));
        } else if let Event::ConnectionUnblocked = event {
            said.send_replace(None);
        }
    }
}

/// Ends the socket when it is dropped, also one that is being connected.
#[derive(Debug, Default)]
struct HangUp(Arc<Line>);

impl Drop for HangUp {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        if let Some(socket) = state.socket.take() {
            // It may have ended by itself.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// The socket below a connection.
#[derive(Debug, Default)]
struct Line(Mutex<LineState>);

#[derive(Debug, Default)]
struct LineState {
    ended: bool,
    socket: Option<TcpStream>,
}

impl Line {
    /// Holds on to the socket that was connected, unless nobody waits for it any more.
    fn hold(&self, socket: TcpStream) -> io::Result<()> {
        let mut state = self.state();
        if state.ended {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.socket = Some(socket);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, LineState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer<T>(
    within: Duration,
    doing: &str,
    answer_to: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match timeout(within, answer_to).await {
        Ok(answered) => answered.map_err(|error| away(doing, &error)),
        Err(_) => Err(no_answer(within, doing)),
    }
}

/// Nothing came for too long.
pub(super) fn no_answer(within: Duration, doing: &str) -> BrokerError {
    BrokerError::Away(format!("cannot {doing}: RabbitMQ did not answer within {} ms", within.as_millis()))
}

/// The connection is gone.
pub(super) fn lost() -> BrokerError {
    BrokerError::Away("the connection to RabbitMQ is lost".to_owned())
}

/// An error of the driver or of the broker, in few words.
pub(super) fn away(doing: &str, error: &lapin::Error) -> BrokerError {
    let ErrorKind::ProtocolError(said) = error.kind() else {
        return BrokerError::Away(format!("cannot {doing}: {error}"));
    };
    let text = said.get_message();
    match said.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) if doing == "connect" => {
            BrokerError::Away(format!("RabbitMQ does not let this user in: {text}"))
        }
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => BrokerError::Away(format!(
            "cannot {doing}: {text}; this user needs the rights to configure, write and read what is named orders…"
        )),
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if doing == "connect" => {
            BrokerError::Away(format!("RabbitMQ does not let this user in: {text}"))
        }
        AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => BrokerError::Away(format!("cannot {doing}: {text}")),
    }
}
