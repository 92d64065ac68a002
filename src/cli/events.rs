//! `docket events`: what happens to orders, a line an event, as it happens or as it was. It reads the log over the
//! operators' address. While it follows, a docket that is away is asked again from the last position: no event is left out
//! and none is printed twice.
//!
//! What was comes order by order, each order's events in their order: that is how the log can be read from its beginning.

mod customers;
mod lines;
mod wanted;

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use actors::commit::{Commit, CommitKey};
use actors::event::Envelope;
use actors::event_store::StoreError;
use actors::log::{Follow, From, Log, LogError, Position};
use actors::order::{OrderId, Version};
use tokio::time::sleep;

use super::client::{Server, block_on, no_log, patiently};
use super::{CommandError, Done, Printable};
use crate::history::RemoteLog;
use crate::history::wire;
use customers::Customers;
use lines::{Lines, Read};
use wanted::{Pattern, Wanted};

/// Commits asked for at a time.
const PAGE: usize = 500;
/// The first wait for a docket that is away, and the longest.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print what happens from now on, until it is ended; without it, what was.
    #[arg(long)]
    follow: bool,
    /// Only these types, such as order.paid or order.item_*.
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',')]
    r#type: Vec<Pattern>,
    /// Only that order's.
    #[arg(long, value_name = "ORDER")]
    order: Option<OrderId>,
    /// Only those of that customer's orders. Whose an order is, only its first event says: where that was not seen, it is
    /// looked up once an order.
    #[arg(long, value_name = "CUSTOMER")]
    customer: Option<String>,
    /// Only what comes behind that place: an event, ORDER.VERSION; with --order a version; with --follow a position, as
    /// --json prints it.
    #[arg(long, value_name = "PLACE")]
    after: Option<Place>,
    #[command(flatten)]
    server: Server,
}

/// Where to go on.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    Version(Version),
    Event(OrderId, Version),
    Position(Position),
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let version = |text: &str| text.parse().map(Version).ok();
        if let Some(version) = version(text) {
            return Ok(Self::Version(version));
        }
        if let Some(position) = wire::read_position(text) {
            return Ok(Self::Position(position));
        }
        let event = text.split_once('.').and_then(|(order, of)| Some(Self::Event(order.parse().ok()?, version(of)?)));
        event.ok_or("must be an event, ORDER.VERSION, a version, or a position as --json prints it")
    }
}

/// Which part of the log.
#[derive(Clone, Debug)]
enum Part {
    Following(From),
    Order(OrderId, Version),
    All(Option<(OrderId, Version)>),
}

pub(super) fn run(args: &Args) -> Done {
    let part = part(args).map_err(CommandError::wrong)?;
    let docket = args.server.docket()?;
    block_on(async {
        let printer = Printer {
            wanted: Wanted { order: args.order, types: args.r#type.clone() },
            customer: args.customer.clone(),
            customers: Customers::default(),
            lines: Lines::new(args.server.json),
            log: docket.log().await?,
        };
        printer.print(part).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Which part that is.
fn part(args: &Args) -> Result<Part, &'static str> {
    match (args.follow, args.order, args.after.clone()) {
        (true, _, None) => Ok(Part::Following(From::Now)),
        (true, _, Some(Place::Position(position))) => Ok(Part::Following(From::Position(position))),
        (true, _, Some(Place::Version(_) | Place::Event(..))) => {
            Err("with --follow, --after is a position, as docket events --follow --json prints it")
        }
        (false, Some(order), None) => Ok(Part::Order(order, Version::NONE)),
        (false, Some(order), Some(Place::Version(version))) => Ok(Part::Order(order, version)),
        (false, Some(order), Some(Place::Event(of, version))) if of == order => Ok(Part::Order(order, version)),
        (false, Some(_), Some(Place::Event(..))) => Err("--after is an event of another order than --order"),
        (false, None, None) => Ok(Part::All(None)),
        (false, None, Some(Place::Event(order, version))) => Ok(Part::All(Some((order, version)))),
        (false, None, Some(Place::Version(_))) => Err("without --order, --after is an event, ORDER.VERSION"),
        (false, _, Some(Place::Position(_))) => Err("--after is a position only with --follow"),
    }
}

/// Prints what is wanted.
struct Printer {
    wanted: Wanted,
    customer: Option<String>,
    customers: Customers,
    lines: Lines,
    log: RemoteLog,
}

impl Printer {
    async fn print(mut self, part: Part) -> Result<(), CommandError> {
        match part {
            Part::Following(from) => self.follow(from).await,
            Part::Order(order, after) => self.order(order, after).await.map(drop),
            Part::All(after) => self.all(after).await,
        }
    }

    /// What happens, until nobody reads it any more.
    async fn follow(&mut self, from: From) -> Result<(), CommandError> {
        let mut feed = self.log.follow(from).await.map_err(not_followed)?;
        loop {
            match feed.next(1).await {
                Ok(commits) => {
                    let position = wire::position(&feed.position());
                    for commit in commits {
                        if self.commit(&commit, Version::NONE, Some(&position)).await? == Read::NoMore {
                            return Ok(());
                        }
                    }
                }
                Err(LogError::Store(StoreError::Away(why))) => {
                    waiting(&why);
                    feed = self.opened_again(feed.position()).await?;
                    eprintln!("going on");
                }
                Err(error) => return Err(not_followed(error)),
            }
        }
    }

    /// The log from that position, as soon as it can be opened.
    async fn opened_again(&self, position: Position) -> Result<Box<dyn Follow>, CommandError> {
        let mut wait = AGAIN_AFTER;
        loop {
            sleep(wait).await;
            match self.log.follow(From::Position(position.clone())).await {
                Err(LogError::Store(StoreError::Away(_))) => wait = (wait * 2).min(AGAIN_AFTER_MAX),
                opened => return opened.map_err(not_followed),
            }
        }
    }

    /// An order's events behind `after`.
    async fn order(&mut self, order: OrderId, after: Version) -> Result<Read, CommandError> {
        let mut from = after.next();
        loop {
            let page = patiently(async || self.log.read(order, from, PAGE).await, waiting).await?;
            // Beyond the end there is the last commit: the one that is nearest below.
            let Some(last) = page.last().map(|commit| commit.last()) else {
                return Err(CommandError::not_done(format!("there is no order {order}")));
            };
            if last < from {
                return Ok(Read::On);
            }
            for commit in page {
                if self.commit(&commit, from, None).await? == Read::NoMore {
                    return Ok(Read::NoMore);
                }
            }
            from = last.next();
        }
    }

    /// The events of all orders, order by order, behind that one.
    async fn all(&mut self, after: Option<(OrderId, Version)>) -> Result<(), CommandError> {
        if let Some((order, version)) = after
            && self.order(order, version).await? == Read::NoMore
        {
            return Ok(());
        }
        let mut after = after.map(|(order, _)| CommitKey { order, first: Version(u32::MAX) });
        loop {
            let page = patiently(async || self.log.scan(after, PAGE).await, waiting).await?;
            let Some(last) = page.last().map(|commit| commit.key()) else { return Ok(()) };
            for commit in page {
                if self.commit(&commit, Version::NONE, None).await? == Read::NoMore {
                    return Ok(());
                }
            }
            after = Some(last);
        }
    }

    /// Prints the events of a commit from a version on, as far as they are wanted.
    async fn commit(&mut self, commit: &Commit, from: Version, position: Option<&str>) -> Result<Read, CommandError> {
        let mut wanted = Vec::new();
        for event in commit.envelopes().filter(|event| event.version >= from) {
            if self.is_wanted(&event).await? {
                wanted.push(event);
            }
        }
        let last = wanted.len().saturating_sub(1);
        for (index, event) in wanted.iter().enumerate() {
            self.lines.add(event, position.filter(|_| index == last))?;
        }
        self.lines.write()
    }

    async fn is_wanted(&mut self, event: &Envelope) -> Result<bool, CommandError> {
        let Some(customer) = &self.customer else { return Ok(self.wanted.takes(event)) };
        self.customers.learn(event);
        Ok(self.wanted.takes(event) && self.customers.has(customer, event.order, &self.log).await?)
    }
}

fn waiting(why: &str) {
    eprintln!("waiting: {}", Printable(why));
}

fn not_followed(error: LogError) -> CommandError {
    match error {
        LogError::Store(error) => no_log(error),
        LogError::NoPosition(why) => CommandError::not_done(format!(
            "the log has no such position any more, so events could be left out: {why}. --follow without --after begins \
             with what happens next; docket events without --follow prints what was."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_version_an_event_or_a_position() {
        let order = OrderId::generate();
        assert_eq!("7".parse(), Ok(Place::Version(Version(7))));
        assert_eq!(format!("{order}.7").parse(), Ok(Place::Event(order, Version(7))));
        let position = format!("{order}.-.82AB.7");
        assert!(matches!(position.parse(), Ok(Place::Position(there)) if wire::position(&there) == position));
        for wrong in ["", "x", "-1", &format!("{order}"), &format!("{order}."), &format!("{order}.x")] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
