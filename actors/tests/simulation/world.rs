//! A seed's world: what outlives every process, what happens to it, how it heals, and what must hold then.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actors::clock::{Clock, Timestamp, TokioClock};
use actors::inbox::{Committed, HoldState, Inbox, Lane, Row, RowWrite, Transaction, Which, Work};
use actors::mutant::Mutant;
use actors::order::{OrderId, Version};
use actors::randomness;
use actors::subscriber::Subscriber;
use actors::subscriber::intervention::{Decision, LetterId};
use actors::testing::broker::{self, MemoryBroker};
use actors::testing::checkpoints::MemoryCheckpoints;
use actors::testing::faulty::{Fate, Faults};
use actors::testing::inbox::MemoryInbox;
use actors::testing::memory::Memory;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::book::Book;
use super::callers::{self, Tales};
use super::line::Strike;
use super::plan::Plan;
use super::process::Process;
use super::stage::{Stage, Sums, Tally};

/// How long a subscriber's lease is, and the relay's.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// What heals has so long to become as it must be.
const HEALS_WITHIN: Duration = Duration::from_secs(600);
/// When the simulation begins.
const BEGINNING: Timestamp = Timestamp::EPOCH;

/// The world of a seed.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) book: Book,
    pub(crate) memory: Memory,
    pub(crate) inbox: MemoryInbox,
    pub(crate) broker: MemoryBroker,
    pub(crate) checkpoints: MemoryCheckpoints,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) fate: Arc<Fate>,
    pub(crate) stage: Arc<Stage>,
    pub(crate) tales: Tales,
    /// A bug put in on purpose.
    pub(crate) mutant: Option<Mutant>,
    rng: RefCell<StdRng>,
    lives: Cell<u32>,
    /// Those that live now, each in its place.
    places: RefCell<Vec<Option<Rc<Process>>>>,
    kills_left: Cell<u32>,
    freezes_left: Cell<u32>,
    healing: Cell<bool>,
}

/// What came of a seed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    /// What was wrong first.
    pub(crate) wrong: Option<String>,
    /// What happened, when somebody wanted to know.
    pub(crate) lines: Vec<String>,
}

/// Runs a seed on this thread, on a clock of its own.
pub(crate) fn run(seed: u64, mutant: Option<Mutant>, traced: bool) -> Run {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    actix_rt::System::with_tokio_rt(runtime).block_on(async move {
        let _seeding = randomness::seed(seed, BEGINNING);
        let world = World::new(seed, mutant, traced);
        let set = tokio::task::LocalSet::new();
        set.run_until(Rc::clone(&world).pass()).await;
        Run { wrong: world.book.first_wrong(), lines: world.book.lines() }
    })
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>, traced: bool) -> Rc<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut plan = Plan::draw(&mut rng);
        (plan.settings.mutant, plan.limits.mutant) = (mutant, mutant);
        let book = Book::new(traced);
        book.note(|| format!("seed {seed}: {plan:?}"));
        let (memory, inbox) = (Memory::new(), MemoryInbox::default());
        let stage = Stage::new(book.clone(), memory.clone(), inbox.clone(), seed, plan.temper);
        let broker = MemoryBroker::new(seed);
        broker.set(plan.broker_faults);
        Rc::new(Self {
            book,
            memory,
            inbox,
            broker,
            checkpoints: MemoryCheckpoints::default(),
            clock: Arc::new(TokioClock::starting_at(BEGINNING)),
            fate: Fate::new(seed, plan.faults),
            stage,
            tales: Tales::default(),
            mutant,
            rng: RefCell::new(rng),
            lives: Cell::new(0),
            places: RefCell::new(vec![None; plan.processes]),
            kills_left: Cell::new(plan.kills),
            freezes_left: Cell::new(plan.freezes),
            healing: Cell::new(false),
            plan,
        })
    }

    /// Something is drawn.
    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    /// Whether something happens that happens so often.
    pub(crate) fn chance(&self, probability: f64) -> bool {
        self.draw(|rng| rng.random_bool(probability))
    }

    /// A process that lives, as soon as there is one.
    pub(crate) async fn some_process(&self) -> Rc<Process> {
        loop {
            let alive: Vec<_> = self.places.borrow().iter().flatten().map(Rc::clone).collect();
            if !alive.is_empty() {
                return Rc::clone(&alive[self.draw(|rng| rng.random_range(0..alive.len()))]);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What was acknowledged is durable, at that moment.
    pub(crate) fn check_durable(&self, id: &str, order: OrderId, version: Version) {
        let commits = self.memory.commits();
        let there = commits.iter().any(|commit| commit.order() == order && commit.last() >= version);
        self.book.demand(there, || format!("{id} is acknowledged, and {order} {version} is not stored"));
    }

    async fn pass(self: Rc<Self>) {
        let mut running = JoinSet::new();
        for place in 0..self.plan.processes {
            running.spawn_local(keeper(Rc::clone(&self), place));
        }
        let mut callers = JoinSet::new();
        for number in 0..self.plan.orders {
            callers.spawn_local(callers::caller(Rc::clone(&self), number));
        }
        callers.spawn_local(incidents(Rc::clone(&self)));
        while let Some(ended) = callers.join_next().await {
            ended.expect("callers do not panic");
            if self.book.first_wrong().is_some() {
                return;
            }
        }
        let linger =
            Duration::from_millis(self.draw(|rng| *[0, 0, 100, 3_000].get(rng.random_range(0..4)).expect("4")));
        sleep(linger).await;
        self.heal().await;
    }

    /// Nothing goes wrong any more, and everything becomes as it must be.
    async fn heal(&self) {
        self.book.note(|| "everything is mended".to_owned());
        self.healing.set(true);
        self.fate.set(Faults::default());
        self.broker.set(broker::Faults::default());
        self.broker.set_away(false);
        self.stage.heal();
        self.places.borrow().iter().flatten().for_each(|process| process.line.heal());
        // What is on its way lands, and journals settle what they left open.
        sleep(self.plan.faults.late_max + Duration::from_secs(1)).await;
        // Also what an operator said and nobody answered.
        self.inbox.set_paused(false).await.expect("it is in memory");
        let since = Instant::now();
        while let Some(missing) = self.missing() {
            if self.book.first_wrong().is_some() {
                return;
            }
            if since.elapsed() > HEALS_WITHIN {
                self.book.wrong(|| format!("stuck: {missing}"));
                return;
            }
            self.retry_dead().await;
            sleep(Duration::from_millis(200)).await;
        }
        self.book.note(|| "everything is through".to_owned());
        self.check().await;
    }

    /// An operator has every dead letter tried again, and says so in every process.
    async fn retry_dead(&self) {
        let present = self.inbox.present().await.expect("it is in memory");
        for mut row in self.rows() {
            let now = self.clock.now();
            let mut dead = 0;
            for lane in [&mut row.applying, &mut row.performing] {
                if let Lane::Held(hold) = lane
                    && hold.state == HoldState::Dead
                {
                    (hold.state, hold.attempts, hold.next_attempt_at) = (HoldState::Retrying, 0, Some(now));
                    dead += 1;
                }
            }
            if dead > 0 {
                self.book.note(|| format!("an operator retries {dead} of {}", row.order));
                let mut transaction = Transaction::of_operator(&present);
                transaction.rows.push(RowWrite { was_written_by: row.written_by, row });
                let committed = self.inbox.commit_now(&transaction);
                self.book.demand_same(|| "an operator's retry".to_owned(), &committed, &Ok(Committed::Written));
            }
        }
        let processes: Vec<_> = self.places.borrow().iter().flatten().map(Rc::clone).collect();
        for process in processes {
            tokio::select! {
                biased;
                () = process.line.gone() => {}
                () = process.tally.changed() => {}
            }
        }
    }

    /// What is not through yet.
    fn missing(&self) -> Option<String> {
        let ends = self.ends();
        let rows: BTreeMap<_, _> = self.rows().into_iter().map(|row| (row.order, row)).collect();
        for (order, last) in &ends {
            let Some(row) = rows.get(order) else { return Some(format!("{order} was never met")) };
            if row.applied != *last || row.seen != *last || !row.applying.is_ready() {
                return Some(format!("events up to {last}: {row:?}"));
            }
            if row.effects_waiting > 0 || !row.performing.is_ready() || row.performed != *last {
                return Some(format!("effects up to {last}: {row:?}"));
            }
        }
        let (progress, last) = (self.inbox.progress(), self.memory.commits().last().map(|commit| commit.id()));
        if last.is_some() && !progress.as_ref().is_some_and(|it| it.position.commit == last && it.catching_up.is_none())
        {
            return Some(format!("the place in the log: {progress:?}"));
        }
        let (waiting, unacknowledged) = (self.broker.waiting(Tally::NAME), self.broker.unacknowledged(Tally::NAME));
        if waiting + unacknowledged > 0 {
            return Some(format!("{waiting} messages wait, {unacknowledged} are not acknowledged"));
        }
        None
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = self.inbox.all_rows();
        rows.sort_by_key(|row| row.order);
        rows
    }

    fn ends(&self) -> BTreeMap<OrderId, Version> {
        let mut ends = BTreeMap::new();
        for commit in self.memory.commits() {
            let end = ends.entry(commit.order()).or_insert(Version::NONE);
            self.book.demand_same(|| format!("{}: the log goes on", commit.order()), &commit.first(), &end.next());
            *end = commit.last();
        }
        ends
    }

    /// Documents are the fold of the log, effects were performed, commands are there, and orders say what their events say.
    async fn check(&self) {
        self.tales.check(self);
        let mut sums = Sums::default();
        for event in self.memory.commits().iter().flat_map(|commit| commit.envelopes().collect::<Vec<_>>()) {
            if self.stage.is_discarded((event.order, event.version, None)) {
                continue;
            }
            sums.events += 1;
            *sums.types.entry(event.event_type).or_default() += 1;
        }
        let stored = |key| {
            let body = self.inbox.documents_now(&[key]).pop().flatten();
            body.map(|body| body.to_string())
        };
        let shared: Sums =
            stored(Tally::shared()).and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default();
        self.book.demand_same(|| "the shared document".to_owned(), &shared, &sums);
        let performed = self.stage.performed();
        for (order, last) in self.ends() {
            let versions: Vec<u32> =
                stored(Tally::own(order)).and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default();
            let kept = self.stage.kept(order, last);
            self.book.demand_same(|| format!("{order}: its document"), &versions, &kept);
            for version in kept.iter().copied().map(Version) {
                for effect in 0..Tally::effects(version) {
                    let deed = (order, version, Some(effect));
                    let done = performed.contains(&deed) || self.stage.is_discarded(deed);
                    self.book.demand(done, || format!("{order}: effect {effect} of {version} was never performed"));
                }
            }
            let effects = self.inbox.effects_now(&[order], Which::All, usize::MAX).len();
            let asked: u32 = kept.iter().map(|version| Tally::effects(Version(*version))).sum();
            self.book.demand_same(|| format!("{order}: recorded effects"), &effects, &(asked as usize));
        }
        for order in self.tales.orders() {
            let last = self.ends().get(&order).copied().unwrap_or(Version::NONE);
            let mut found = None;
            for _ in 0..100 {
                found = callers::look(self, order).await.map(|order| order.version);
                if found.is_some() || last == Version::NONE {
                    break;
                }
                sleep(Duration::from_millis(200)).await;
            }
            self.book.demand_same(|| format!("{order}: as it is read"), &found, &Some(last));
        }
    }

    fn strikes(&self) -> Vec<(u32, Strike)> {
        if self.healing.get() {
            return Vec::new();
        }
        let mut strikes = Vec::new();
        if self.freezes_left.get() > 0 && self.chance(0.6) {
            self.freezes_left.set(self.freezes_left.get() - 1);
            let time = LEASE.mul_f64(self.draw(|rng| rng.random_range(0.1..2.5)));
            strikes.push((self.draw(|rng| rng.random_range(1..120)), Strike::Freeze(time)));
        }
        if self.kills_left.get() > 0 && self.chance(0.7) {
            self.kills_left.set(self.kills_left.get() - 1);
            strikes.push((self.draw(|rng| rng.random_range(1..200)), Strike::Kill));
        }
        strikes.sort_by_key(|(at, _)| *at);
        strikes
    }
}

/// Sees to it that there is a process in that place: another one after each that is gone.
async fn keeper(world: Rc<World>, place: usize) {
    loop {
        world.lives.set(world.lives.get() + 1);
        let name = format!("{}{}", ["a", "b", "c"].get(place).unwrap_or(&"x"), world.lives.get());
        let process = Process::start(&world, name, world.strikes());
        world.places.borrow_mut()[place] = Some(Rc::clone(&process));
        process.line.gone().await;
        world.places.borrow_mut()[place] = None;
        process.bury().await;
        drop(process);
        sleep(Duration::from_millis(world.draw(|rng| *[1, 100, 1_500].get(rng.random_range(0..3)).expect("3")))).await;
    }
}

/// Whatever else happens meanwhile.
async fn incidents(world: Rc<World>) {
    for _ in 0..world.plan.incidents {
        sleep(Duration::from_millis(world.draw(|rng| rng.random_range(1..600)))).await;
        let process = world.some_process().await;
        let kind = world.draw(|rng| rng.random_range(0..18));
        let lasts = Duration::from_millis(world.draw(|rng| rng.random_range(1..1_500)));
        world.book.note(|| format!("incident {kind} at {}, {lasts:?}", process.line.name()));
        match kind {
            0 => process.line.cut(),
            1 => world.broker.purge(Tally::NAME),
            2 => world.broker.delete(Tally::NAME),
            3 => world.broker.disconnect(),
            4 => {
                world.broker.set_away(true);
                sleep(lasts).await;
                world.broker.set_away(false);
            }
            5 => process.restart("docket/bridge/consumer/tally"),
            6 => process.restart("docket/subscribers/tally"),
            7 => process.restart("docket/bridge/relay"),
            8 => {
                world.stage.set_dependency_down(true);
                sleep(lasts).await;
                world.stage.set_dependency_down(false);
            }
            9 => world.inbox.jump(LEASE * 2),
            10..13 => decide(&world, &process, false).await,
            13..15 => decide(&world, &process, true).await,
            _ => {
                pause(&world, &process, true).await;
                sleep(lasts).await;
                let process = world.some_process().await;
                pause(&world, &process, false).await;
            }
        }
    }
}

/// An operator looks what is held, and lets some of it be tried again, or lets it go.
async fn decide(world: &World, process: &Process, discards: bool) {
    let works = [Work::Applying, Work::Performing];
    let rows = world.rows();
    let held: Vec<_> =
        rows.iter().flat_map(|row| works.into_iter().filter_map(|work| LetterId::of(row, work))).collect();
    let Some(id) = held.choose(&mut *world.rng.borrow_mut()).copied() else { return };
    let thinks = Duration::from_millis(world.draw(|rng| rng.random_range(0..100)));
    sleep(thinks).await;
    let letters = process.tally.letters();
    let decision = Decision { reason: "it is enough".to_owned(), by: "ana".to_owned(), at: letters.now() };
    let decides = async {
        match discards {
            true => letters.discard(id, &decision).await.map(|_| "discarded"),
            false => letters.retry(id).await.map(|_| "retried"),
        }
    };
    let said = tokio::select! {
        biased;
        () = process.line.gone() => return,
        said = tokio::time::timeout(Duration::from_secs(1), decides) => said,
    };
    world.book.note(|| format!("an operator decides about {id}, and hears {said:?}"));
}

async fn pause(world: &World, process: &Process, paused: bool) {
    let said = tokio::select! {
        biased;
        () = process.line.gone() => return,
        said = tokio::time::timeout(Duration::from_secs(1), process.tally.pause(paused)) => said,
    };
    world.book.note(|| format!("an operator says paused: {paused}, and hears {said:?}"));
}
