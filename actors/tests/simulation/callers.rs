//! Callers: they place orders and move them on, each order by one caller after another, sometimes twice at once, and write
//! down what they were told. What they were told must be true, at that moment and at the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actors::commit::Origin;
use actors::order::command::{Create, Item};
use actors::order::directory::Request;
use actors::order::error::At;
use actors::order::{Command, CommandError, Order, OrderId, ReadError, Version};
use rand::RngExt;
use tokio::time::{sleep, timeout};

use super::world::World;

/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What callers know of one command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// It is done, and the order was at that version then.
    done: Option<Version>,
    /// Somebody was told that nobody knows.
    unknown: bool,
}

/// What callers were told, by the command's correlation id.
#[derive(Default)]
pub(crate) struct Tales {
    commands: RefCell<BTreeMap<String, (OrderId, Told)>>,
    /// The newest version that somebody saw.
    newest: RefCell<BTreeMap<OrderId, Version>>,
}

/// What a caller was told in the end.
enum Answer {
    Done(Arc<Order>),
    Not,
}

impl Tales {
    fn note(&self, id: &str, order: OrderId, note: impl FnOnce(&mut Told)) {
        let mut commands = self.commands.borrow_mut();
        note(&mut commands.entry(id.to_owned()).or_insert_with(|| (order, Told::default())).1);
    }

    fn saw(&self, order: OrderId, version: Version) {
        let mut newest = self.newest.borrow_mut();
        let newest = newest.entry(order).or_insert(version);
        *newest = version.max(*newest);
    }

    fn newest(&self, order: OrderId) -> Version {
        self.newest.borrow().get(&order).copied().unwrap_or(Version::NONE)
    }

    /// Every command that was acknowledged is stored once, where it was said to be; one that was refused is not; no one is
    /// stored twice.
    pub(crate) fn check(&self, world: &World) {
        let mut stored: BTreeMap<String, Vec<(OrderId, Version)>> = BTreeMap::new();
        for commit in world.memory.commits() {
            let mut version = Version(commit.first().0 - 1);
            for part in commit.commands() {
                version = version.plus(u32::try_from(part.events.len()).expect("few"));
                stored.entry(part.origin.correlation_id.clone()).or_default().push((commit.order(), version));
            }
        }
        let book = &world.book;
        for (id, (order, told)) in &*self.commands.borrow() {
            let there = stored.remove(id).unwrap_or_default();
            match told {
                Told { done: Some(version), .. } => {
                    book.demand_same(
                        || format!("where {id} is stored, which is done"),
                        &there,
                        &vec![(*order, *version)],
                    );
                }
                Told { done: None, unknown: true } => {
                    book.demand(there.len() <= 1, || format!("{id} is stored more than once: {there:?}"));
                }
                Told { done: None, unknown: false } => {
                    book.demand(there.is_empty(), || format!("{id} is certainly not done, and stored: {there:?}"));
                }
            }
        }
        book.demand(stored.is_empty(), || format!("nobody sent {stored:?}"));
    }

    /// All orders that somebody heard of.
    pub(crate) fn orders(&self) -> Vec<OrderId> {
        self.newest.borrow().keys().copied().collect()
    }
}

/// One order's life.
pub(crate) async fn caller(world: Rc<World>, number: usize) {
    let key = format!("create-{number}");
    let keyed = world.chance(0.8);
    let order = if keyed { OrderId::of_creation("c-1", &key) } else { OrderId::generate() };
    let create = Create {
        customer_id: "c-1".to_owned(),
        email: None,
        reference: None,
        currency: "EUR".to_owned(),
        items: vec![Item { sku: "A-1".to_owned(), quantity: 2, unit_price: 4995 }],
    };
    let mut known = None;
    if let Answer::Done(order) = say(&world, order, &key, keyed, Command::Create(create)).await {
        known = Some(order);
    }
    for step in 0..world.plan.commands {
        let pause = world.plan.pause_max.mul_f64(world.draw(|rng| rng.random()));
        sleep(pause).await;
        let id = format!("{number}-{step}");
        let command = next(&world, known.as_deref(), step);
        let keyed = world.chance(0.8);
        let answer = if keyed && world.chance(0.2) {
            // Impatient: the same twice at once.
            let (one, other) =
                tokio::join!(say(&world, order, &id, true, command.clone()), say(&world, order, &id, true, command));
            if let Answer::Done(_) = one { one } else { other }
        } else if world.chance(0.2) {
            // Somebody else beside it.
            let other = format!("{id}-beside");
            let item = Item { sku: format!("B-{step}"), quantity: 1, unit_price: 1 };
            let (one, _) = tokio::join!(
                say(&world, order, &id, keyed, command),
                say(&world, order, &other, false, Command::AddItem(item))
            );
            one
        } else {
            say(&world, order, &id, keyed, command).await
        };
        if let Answer::Done(order) = answer {
            known = Some(order);
        }
        if world.chance(0.3)
            && let Some(order) = look(&world, order).await
        {
            known = Some(order);
        }
    }
}

fn next(world: &World, order: Option<&Order>, step: usize) -> Command {
    let amount = order.map_or(9990, |order| order.total.minor_units());
    match world.draw(|rng| rng.random_range(0..9)) {
        0..3 => Command::AddItem(Item { sku: format!("A-{}", step % 3), quantity: 1, unit_price: 4995 }),
        3 => Command::RemoveItem { sku: format!("A-{}", step % 3) },
        4 | 5 => Command::Pay { amount, reference: "p".to_owned() },
        6 => Command::Ship { carrier: "DHL".to_owned(), tracking_number: "T-1".to_owned() },
        7 => Command::Cancel { reason: "changed my mind".to_owned() },
        _ => Command::Refund { reason: "broken".to_owned(), amount: Some(1) },
    }
}

/// Sends a command until there is an answer that settles it: with a key for as long as it takes, without one no further than
/// "nobody knows".
async fn say(world: &World, order: OrderId, id: &str, keyed: bool, command: Command) -> Answer {
    let key = keyed.then(|| id.to_owned());
    for _ in 0..200 {
        let origin = Origin::anonymous(id.to_owned(), None);
        let request = Request { order, command: command.clone(), if_match: None, key: key.clone(), origin };
        match ask(world, id, request).await {
            Ok(order) => return Answer::Done(order),
            Err(CommandError::NotDone { .. } | CommandError::KeyInProgress) => {}
            Err(CommandError::OutcomeUnknown) if keyed => {}
            Err(
                CommandError::OutcomeUnknown
                | CommandError::Refused(_)
                | CommandError::VersionMismatch { .. }
                | CommandError::KeyReused
                | CommandError::Internal,
            ) => return Answer::Not,
        }
        let pause = Duration::from_millis(world.draw(|rng| rng.random_range(1..200)));
        sleep(pause).await;
    }
    world.book.wrong(|| format!("{id} gets no answer"));
    Answer::Not
}

/// Sends a command once.
async fn ask(world: &World, id: &str, request: Request) -> Result<Arc<Order>, CommandError> {
    let order = request.order;
    world.tales.note(id, order, |_| {});
    let process = world.some_process().await;
    let name = process.line.name();
    world.book.note(|| format!("{id} to {name}: {:?} on {order}", request.command));
    let answer = tokio::select! {
        biased;
        () = process.line.gone() => Err(CommandError::OutcomeUnknown),
        answer = timeout(PATIENCE, process.orders.command(request)) => answer.unwrap_or(Err(CommandError::OutcomeUnknown)),
    };
    // What a process says while it dies nobody hears.
    let answer = if process.line.is_cut() { Err(CommandError::OutcomeUnknown) } else { answer };
    match answer {
        Ok(answer) => {
            let version = answer.order.version;
            world.book.note(|| format!("{id} is done: {order} is at {version} (replayed: {})", answer.replayed));
            world.tales.note(id, order, |told| {
                let before = told.done.replace(version);
                let same = before.is_none_or(|before| before == version);
                world.book.demand(same, || format!("{id} was at {before:?}, and is at {version} now"));
            });
            world.tales.saw(order, version);
            world.check_durable(id, order, version);
            Ok(answer.order)
        }
        Err(error) => {
            world.book.note(|| format!("{id}: {error}"));
            match &error {
                CommandError::OutcomeUnknown => world.tales.note(id, order, |told| told.unknown = true),
                CommandError::Internal | CommandError::KeyReused => world.book.wrong(|| format!("{id}: {error}")),
                CommandError::Refused(_)
                | CommandError::VersionMismatch { .. }
                | CommandError::KeyInProgress
                | CommandError::NotDone { .. } => {}
            }
            Err(error)
        }
    }
}

/// Reads the order, unless it cannot be read now. Nothing older is given than anybody had seen before.
pub(crate) async fn look(world: &World, order: OrderId) -> Option<Arc<Order>> {
    let before = world.tales.newest(order);
    let process = world.some_process().await;
    let read = tokio::select! {
        biased;
        () = process.line.gone() => return None,
        read = timeout(PATIENCE, process.orders.get(order, At::Now)) => read.ok()?,
    };
    if process.line.is_cut() {
        return None;
    }
    match read {
        Ok(found) => {
            let version = found.version;
            world.book.note(|| format!("{order} is read at {version}"));
            world
                .book
                .demand(version >= before, || format!("{order} is read at {version}, and was at {before} before"));
            world.tales.saw(order, version);
            Some(found)
        }
        Err(ReadError::NotFound) => {
            world.book.demand(before == Version::NONE, || format!("{order} is not found, and was at {before} before"));
            None
        }
        Err(ReadError::NotDone { .. }) => None,
        Err(ReadError::Internal) => {
            world.book.wrong(|| format!("{order} cannot be read twice"));
            None
        }
    }
}
