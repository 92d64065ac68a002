//! The engine with a broker that loses, repeats, shuffles and withholds what it is to bring, and with the log's heads,
//! from which everything is found in the end.

use super::*;
use crate::commit::CommitKey;

/// One connection in the one life.
const SESSION: Session = Session { life: 1, connection: 1 };

fn receipt(tag: u64) -> Receipt {
    Receipt { session: SESSION, tag: Tag(tag) }
}

fn events(commits: &[Arc<Commit>]) -> Vec<Arc<Envelope>> {
    commits.iter().flat_map(|commit| commit.envelopes()).map(Arc::new).collect()
}

fn head(commit: &Commit) -> Head {
    Head { order: commit.order(), last: commit.last(), recorded_at: commit.recorded_at() }
}

impl World {
    fn received(&mut self, receipt: Receipt, events: Vec<Arc<Envelope>>) -> Input {
        self.received.push((receipt, events.iter().map(|event| (event.order, event.version)).collect()));
        Input::Received(events, receipt)
    }

    fn receive(&mut self, engine: &mut Engine, tag: u64, events: Vec<Arc<Envelope>>) -> Option<Timestamp> {
        let input = self.received(receipt(tag), events);
        self.settle(engine, input)
    }

    /// The log is read up to its end.
    fn heads(&mut self, engine: &mut Engine, commits: &[Arc<Commit>]) -> Option<Timestamp> {
        let heads = commits.iter().map(|commit| head(commit)).collect();
        let position = position(self.log.len(), commits.last().map(|commit| commit.id()));
        self.settle(engine, Input::Heads(heads, position))
    }

    fn followed(&self) -> String {
        self.inbox.progress().expect("progress").position.token
    }

    fn pass_time(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }
}

#[test]
fn what_the_broker_brings_is_acknowledged_when_it_is_stored_and_not_before() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[2, 2]);
    world.log.extend_from_slice(&a);
    let input = world.received(receipt(4), events(&a));
    let mut actions = VecDeque::from(engine.step(input, world.now));
    let mut written = false;
    let mut acknowledged = false;
    while let Some(action) = actions.pop_front() {
        acknowledged |= matches!(action, Action::Acknowledge(_));
        assert!(written || !acknowledged, "{action:?}");
        written |= matches!(action, Action::Commit(_));
        if let Some(input) = world.answer(action) {
            actions.extend(engine.step(input, world.now));
        }
    }
    assert_eq!(world.acknowledged, Some(receipt(4)));
    world.check();
}

#[test]
fn while_the_outcome_of_a_transaction_is_unknown_nothing_in_it_is_acknowledged() {
    for fault in [Fault::Away, Fault::UnknownLost, Fault::UnknownWritten] {
        let mut world = World::new();
        let mut engine = world.begun();
        let a = order(&[2]);
        world.log.extend_from_slice(&a);
        world.inbox.fail([fault]);
        let wake = world.receive(&mut engine, 2, events(&a)).expect("another attempt");
        assert_eq!(world.acknowledged, None, "{fault:?}");
        world.now = wake;
        world.settle_all(&mut engine, Input::Tick);
        assert_eq!(world.acknowledged, Some(receipt(2)), "{fault:?}");
        world.check();
    }
}

#[test]
fn a_message_that_nobody_can_read_is_acknowledged_in_its_turn() {
    let mut world = World::new();
    let mut engine = world.begun();
    world.receive(&mut engine, 1, Vec::new());
    assert_eq!(world.acknowledged, Some(receipt(1)));
    let a = order(&[1]);
    world.log.extend_from_slice(&a);
    world.inbox.fail([Fault::Away]);
    let wake = world.receive(&mut engine, 2, events(&a)).expect("another attempt");
    world.receive(&mut engine, 3, Vec::new());
    assert_eq!(world.acknowledged, Some(receipt(1)), "not before what came before it");
    world.now = wake;
    world.settle_all(&mut engine, Input::Tick);
    assert_eq!(world.acknowledged, Some(receipt(3)));
}

#[test]
fn what_comes_a_thousand_times_is_applied_once_and_acknowledged_each_time() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 2]);
    world.log.extend_from_slice(&a);
    for tag in 1..=1_000 {
        world.receive(&mut engine, tag, events(&a));
        assert_eq!(world.acknowledged, Some(receipt(tag)));
    }
    world.check();
    let status = engine.status();
    assert_eq!((status.applied, status.duplicates, status.missed), (3, 2_997, 0));
}

#[test]
fn what_comes_in_any_order_is_applied_in_the_orders_own() {
    for seed in 0..50 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        let mut engine = world.begun();
        let all: Vec<_> = (0..4).flat_map(|_| order(&[1, 2, 1, 3])).collect();
        world.log.extend_from_slice(&all);
        let mut messages = events(&all);
        let count = messages.len() as u64;
        for tag in 1..=count {
            let event = messages.swap_remove(rng.random_range(0..messages.len()));
            world.receive(&mut engine, tag, vec![event]);
        }
        world.settle_all(&mut engine, Input::Tick);
        assert_eq!(world.acknowledged, Some(receipt(count)));
        world.check();
    }
}

#[test]
fn a_lost_message_is_read_from_the_log_once_the_queue_is_empty() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1, 2]);
    world.log.extend_from_slice(&a);
    world.receive(&mut engine, 1, events(&a[..1]));
    world.heads(&mut engine, &a);
    world.settle(&mut engine, Input::QueueSeenEmpty);
    assert_eq!((world.document(a[0].order()), world.followed()), ("1".to_owned(), "0".to_owned()), "it may still come");
    world.pass_time(Duration::from_secs(2));
    world.settle(&mut engine, Input::QueueSeenEmpty);
    world.check();
    let status = engine.status();
    assert_eq!((status.missed, world.followed()), (3, "3".to_owned()));
    assert_eq!(status.behind, Some(0));
}

#[test]
fn what_the_broker_has_brought_holds_no_position_back() {
    let mut world = World::new();
    let mut engine = world.begun();
    // With an effect the position would be stored with its outcome.
    let a = order(&[1]);
    world.log.extend_from_slice(&a);
    world.heads(&mut engine, &a);
    assert_eq!(world.followed(), "0");
    let stored = world.receive(&mut engine, 1, events(&a)).expect("the position is stored soon");
    assert_eq!((world.followed(), stored), ("0".to_owned(), world.now.after(POSITION_EVERY)));
    assert!(!engine.status().is_settled_at(&position(1, Some(a[0].id()))), "it is said when it is stored");
    world.now = stored;
    world.settle_all(&mut engine, Input::Tick);
    assert_eq!((world.followed(), engine.status().missed), ("1".to_owned(), 0));
    assert!(engine.status().is_settled_at(&position(1, Some(a[0].id()))));
}

#[test]
fn a_position_alone_is_written_twice_a_second_and_otherwise_with_what_comes_next() {
    let mut world = World::new();
    let mut engine = world.begun();
    let commits: Vec<_> = (0..100).flat_map(|_| order(&[1])).collect();
    let mut written = 0;
    for (tag, commit) in (1..).zip(&commits) {
        world.log.push(commit.clone());
        let heads = Input::Heads(vec![head(commit)], position(world.log.len(), Some(commit.id())));
        let delivered = world.received(receipt(tag), events(std::slice::from_ref(commit)));
        for input in [heads, delivered] {
            let mut actions = VecDeque::from(engine.step(input, world.now));
            while let Some(action) = actions.pop_front() {
                written += usize::from(matches!(action, Action::Commit(_)));
                if let Some(input) = world.answer(action) {
                    actions.extend(engine.step(input, world.now));
                }
            }
        }
        world.pass_time(Duration::from_millis(50));
    }
    assert_eq!((written, world.followed()), (100, "99".to_owned()), "with the next event");
    world.settle_all(&mut engine, Input::Tick);
    assert_eq!(world.followed(), "100");
    world.check();
}

#[test]
fn a_position_is_stored_only_with_what_is_seen_of_everything_before_it() {
    let mut world = World::new();
    let mut engine = world.begun();
    let commits: Vec<_> = (0..20).flat_map(|_| order(&[1])).collect();
    world.log.extend_from_slice(&commits);
    let mut actions = VecDeque::new();
    for (token, commit) in commits.iter().enumerate() {
        actions.extend(engine.step(Input::Heads(vec![head(commit)], position(token + 1, None)), world.now));
    }
    world.pass_time(Duration::from_secs(2));
    actions.extend(engine.step(Input::QueueSeenEmpty, world.now));
    while let Some(action) = actions.pop_front() {
        if let Some(input) = world.answer(action) {
            actions.extend(engine.step(input, world.now));
        }
        let followed: usize = world.followed().parse().expect("a number");
        for commit in &commits[..followed] {
            assert_eq!(world.row(commit.order()).seen, Version(1));
        }
    }
    assert_eq!(world.followed(), "20");
    world.settle_all(&mut engine, Input::Tick);
    world.check();
}

#[test]
fn of_a_log_that_was_lost_no_place_is_stored_any_more() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1]);
    world.log.extend_from_slice(&a);
    world.heads(&mut engine, &a);
    let anew = Position { log: LogId(Uuid::from_u128(2)), token: "9".to_owned(), commit: None };
    world.settle(&mut engine, Input::Opened(anew.clone()));
    world.pass_time(Duration::from_secs(2));
    world.settle(&mut engine, Input::QueueSeenEmpty);
    let progress = world.inbox.progress().expect("progress");
    assert_eq!((progress.position, progress.catching_up.is_some()), (anew, true));
}

#[test]
fn while_the_broker_brings_nothing_the_log_is_read_a_minute_later() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 2]);
    world.log.extend_from_slice(&a);
    let began = world.now;
    world.heads(&mut engine, &a);
    world.pass_time(Duration::from_millis(59_999));
    world.settle(&mut engine, Input::Tick);
    assert_eq!(engine.status().missed, 0);
    world.settle_all(&mut engine, Input::Tick);
    assert_eq!(world.now, began.after(Duration::from_secs(60)));
    world.check();
    assert_eq!(engine.status().missed, 3);
}

#[test]
fn a_backlog_that_the_broker_brings_is_not_read_from_the_log_as_well() {
    let mut world = World::new();
    let mut engine = world.begun();
    // More orders than are kept in memory.
    let commits: Vec<_> = (0..200).flat_map(|_| order(&[1, 1])).collect();
    world.log.extend_from_slice(&commits);
    world.heads(&mut engine, &commits);
    for (tag, commit) in (1..).zip(&commits) {
        world.receive(&mut engine, tag, events(std::slice::from_ref(commit)));
        world.pass_time(Duration::from_secs(50));
        world.settle(&mut engine, Input::Tick);
    }
    world.settle(&mut engine, Input::QueueSeenEmpty);
    world.check();
    assert_eq!((engine.status().missed, world.followed()), (0, "400".to_owned()));
}

#[test]
fn a_head_whose_row_is_not_in_memory_holds_no_position_back_when_its_row_says_that_it_is_seen() {
    let mut world = World::new();
    let mut engine = world.begun();
    // More orders than are kept in memory, one of them held, and one of which the broker brings nothing.
    let commits: Vec<_> = (0..50).flat_map(|_| order(&[1])).collect();
    world.failing.insert((commits[3].order(), Version(1)), (u32::MAX, Failure::permanent("never")));
    world.log.extend_from_slice(&commits);
    for (tag, commit) in (1..).zip(&commits[..49]) {
        world.receive(&mut engine, tag, events(std::slice::from_ref(commit)));
    }
    for (count, page) in [(49, &commits[..49]), (50, &commits[49..])] {
        let heads = page.iter().map(|commit| head(commit)).collect();
        world.settle(&mut engine, Input::Heads(heads, position(count, None)));
    }
    world.pass_time(Duration::from_millis(999));
    world.settle(&mut engine, Input::Tick);
    assert_eq!(world.followed(), "0");
    let mut looks = 0;
    for _ in 0..20 {
        world.pass_time(Duration::from_secs(1));
        let mut actions = VecDeque::from(engine.step(Input::Tick, world.now));
        while let Some(action) = actions.pop_front() {
            looks += usize::from(matches!(action, Action::LookUpHeads(_)));
            if let Some(input) = world.answer(action) {
                actions.extend(engine.step(input, world.now));
            }
        }
    }
    let row = |commit: &Arc<Commit>| world.inbox.rows_now(&[commit.order()]).pop();
    assert!(commits[..49].iter().all(|commit| row(commit).is_some()) && row(&commits[49]).is_none());
    assert_eq!(engine.status().missed, 0);
    assert!((2..=6).contains(&looks), "{looks} looks at a head that is not seen, in twenty seconds");
    assert_eq!(world.followed(), "49", "up to the head that nobody brought");
}

#[test]
fn a_paused_subscriber_acknowledges_and_keeps_what_it_has_seen() {
    let mut world = World::new();
    let mut engine = world.begun();
    let a = order(&[1, 1, 1]);
    world.log.extend_from_slice(&a);
    world.settle_all(&mut engine, told_to_rest(true));
    world.receive(&mut engine, 1, events(&a[..1]));
    assert_eq!(world.acknowledged, Some(receipt(1)));
    world.heads(&mut engine, &a);
    world.pass_time(Duration::from_secs(2));
    world.settle(&mut engine, Input::QueueSeenEmpty);
    assert_eq!((world.document(a[0].order()), world.row(a[0].order()).seen), (String::new(), Version(3)));
    assert_eq!((world.followed(), engine.status().state), ("3".to_owned(), SubscriberState::Paused));
    // Over the end of this life, with nothing that is brought again.
    let mut engine = world.engine();
    world.settle_all(&mut engine, told_to_rest(false));
    world.check();
}

#[test]
fn a_scan_and_a_broker_take_no_room_from_each_other_and_heads_none_from_either() {
    let mut world = World::new();
    let mut engine = world.begun();
    world.inbox.fail([Fault::Away]);
    let commits: Vec<_> = (0..64).flat_map(|_| order(&[1])).collect();
    engine.step(Input::Scanned(commits.clone()), world.now);
    engine.step(Input::Scanned(commits.clone()), world.now);
    assert!(!engine.wants_commits() && engine.wants_messages() && engine.wants_heads());
    engine.step(Input::Received(events(&commits), receipt(1)), world.now);
    assert!(!engine.wants_messages() && engine.wants_heads());
    let heads: Vec<_> = commits.iter().map(|commit| head(commit)).collect();
    for _ in 0..2_000 {
        if engine.wants_heads() {
            engine.step(Input::Heads(heads.clone(), position(1, None)), world.now);
        }
    }
    assert!(!engine.wants_heads(), "they are bounded, too");
}

/// The broker and the log as one life of the engine sees them, and lives one after another.
struct Chaos {
    rng: StdRng,
    world: World,
    /// What is not committed yet.
    future: VecDeque<Arc<Commit>>,
    queue: Vec<Arc<Envelope>>,
    handed_out: Vec<(Receipt, Arc<Envelope>)>,
    session: Session,
    tag: u64,
    /// How far this life has read heads.
    read: usize,
    scan: Option<Option<CommitKey>>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut orders: Vec<_> = (0..rng.random_range(1..10))
            .map(|_| order(&(0..rng.random_range(1..6)).map(|_| rng.random_range(1..4)).collect::<Vec<_>>()))
            .map(VecDeque::from)
            .collect();
        let mut future = VecDeque::new();
        while !orders.is_empty() {
            let index = rng.random_range(0..orders.len());
            match orders[index].pop_front() {
                Some(commit) => future.push_back(commit),
                None => drop(orders.swap_remove(index)),
            }
        }
        let session = Session { life: 0, connection: 0 };
        let (queue, handed_out) = (Vec::new(), Vec::new());
        Self { rng, world: World::new(), future, queue, handed_out, session, tag: 0, read: 0, scan: None }
    }

    fn run(mut self) {
        for _ in 0..self.rng.random_range(1..7) {
            self.life();
        }
        // All that the broker had is lost. What is committed is in the log.
        while self.commit() {}
        let mut engine = self.begin();
        if let Some(input) = self.opened() {
            self.world.settle_all(&mut engine, input);
        }
        while let Some(input) = self.scanned() {
            self.world.settle_all(&mut engine, input);
        }
        while let Some(input) = self.heads() {
            self.world.settle_all(&mut engine, input);
        }
        self.world.settle_all(&mut engine, Input::Tick);
        self.world.check();
        let status = engine.status();
        assert_eq!((status.behind, status.lanes_held, status.effects_waiting), (Some(0), Some(0), Some(0)));
        assert_eq!((status.state, self.world.followed()), (SubscriberState::Running, self.world.log.len().to_string()));
    }

    fn begin(&mut self) -> Engine {
        self.reconnect();
        self.world.unclean = self.rng.random_bool(0.5);
        self.session = Session { life: self.session.life + 1, connection: 1 };
        let engine = self.world.engine();
        let progress = self.world.inbox.progress();
        self.scan = progress.as_ref().and_then(|progress| progress.catching_up).map(|catching_up| catching_up.after);
        self.read = progress.map_or(0, |progress| progress.position.token.parse().expect("a number"));
        engine
    }

    /// The log is opened at its end when there is no position.
    fn opened(&mut self) -> Option<Input> {
        if self.world.inbox.progress().is_some() {
            return None;
        }
        self.read = self.world.log.len();
        self.scan = Some(None);
        Some(Input::Opened(position(self.read, self.world.log.last().map(|commit| commit.id()))))
    }

    fn life(&mut self) {
        let mut engine = self.begin();
        let mut actions = Vec::new();
        if let Some(input) = self.opened() {
            actions.extend(self.step(&mut engine, input));
        }
        for _ in 0..self.rng.random_range(1..200) {
            let wait = if self.rng.random_bool(0.05) { 70_000 } else { 300 };
            self.world.pass_time(Duration::from_millis(self.rng.random_range(0..wait)));
            let input = match self.rng.random_range(0..20) {
                0 | 1 => {
                    self.commit();
                    None
                }
                2..=4 => Some(self.deliver()),
                5 | 6 => self.heads(),
                // Sometimes it is not empty at all.
                7 => Some(Input::QueueSeenEmpty),
                8 => self.scanned(),
                9 if self.rng.random_bool(0.2) => {
                    self.reconnect();
                    None
                }
                9 => Some(told_to_rest(self.rng.random_bool(0.3))),
                10 => Some(Input::Tick),
                _ if actions.is_empty() => None,
                _ => {
                    let index = self.rng.random_range(0..actions.len());
                    let action = actions.swap_remove(index);
                    self.disturb();
                    self.world.answer(action)
                }
            };
            if let Some(input) = input {
                actions.extend(self.step(&mut engine, input));
            }
        }
    }

    /// An acknowledgement must be true when it is given. It may get lost.
    fn step(&mut self, engine: &mut Engine, input: Input) -> Vec<Action> {
        let mut actions = engine.step(input, self.world.now);
        for acknowledgement in actions.extract_if(.., |action| matches!(action, Action::Acknowledge(_))) {
            let Action::Acknowledge(receipt) = acknowledgement else { continue };
            self.world.acknowledge(receipt);
            if self.rng.random_bool(0.9) {
                let through = |other: &Receipt| other.session == receipt.session && other.tag <= receipt.tag;
                self.handed_out.retain(|(other, _)| !through(other));
            }
        }
        actions
    }

    /// Another commit, whose messages may be lost, repeated, or overtaken.
    fn commit(&mut self) -> bool {
        let Some(commit) = self.future.pop_front() else { return false };
        for event in events(std::slice::from_ref(&commit)) {
            for _ in 0..self.rng.random_range(0..3) {
                let place = self.rng.random_range(0..=self.queue.len());
                self.queue.insert(place, Arc::clone(&event));
            }
        }
        self.world.log.push(commit);
        true
    }

    fn deliver(&mut self) -> Input {
        let count = self.rng.random_range(0..5).min(self.queue.len());
        let events: Vec<_> = self.queue.drain(..count).collect();
        self.tag += 1;
        let receipt = Receipt { session: self.session, tag: Tag(self.tag) };
        self.handed_out.extend(events.iter().map(|event| (receipt, Arc::clone(event))));
        self.world.received(receipt, events)
    }

    /// What was not acknowledged is brought again.
    fn reconnect(&mut self) {
        let handed_out = self.handed_out.drain(..).map(|(_, event)| event);
        self.queue.splice(0..0, handed_out);
        self.session.connection += 1;
        self.tag = 0;
    }

    fn heads(&mut self) -> Option<Input> {
        let count = self.rng.random_range(1..5).min(self.world.log.len() - self.read);
        let commits = &self.world.log[self.read..self.read + count];
        let heads = commits.iter().map(|commit| head(commit)).collect();
        self.read += count;
        let last = self.read.checked_sub(1).map(|last| self.world.log[last].id());
        (count > 0).then(|| Input::Heads(heads, position(self.read, last)))
    }

    fn scanned(&mut self) -> Option<Input> {
        let after = self.scan?;
        let mut commits = self.world.log.clone();
        commits.sort_by_key(|commit| commit.key());
        commits.retain(|commit| after.is_none_or(|after| commit.key() > after));
        commits.truncate(self.rng.random_range(1..4));
        self.scan = commits.last().map(|last| Some(last.key()));
        Some(if commits.is_empty() { Input::ScanEnded } else { Input::Scanned(commits) })
    }

    fn disturb(&mut self) {
        if self.rng.random_bool(0.1) {
            let fault = [Fault::Away, Fault::UnknownLost, Fault::UnknownWritten][self.rng.random_range(0..3)];
            self.world.inbox.fail([fault]);
        }
        if self.rng.random_bool(0.05)
            && let Some(last) = self.world.log.last()
        {
            self.world.inbox.touch(last.order());
        }
    }
}

/// The broker loses, repeats and shuffles; heads and deliveries come in any order; lives end between any two actions, and
/// connections at any time. Whatever was acknowledged is stored, and in the end the broker is gone with all that it had,
/// and the state is the fold of the log by heads alone.
#[test]
fn whatever_a_broker_does_what_is_acknowledged_is_stored_and_the_rest_is_found_in_the_log() {
    for seed in 0..1_000 {
        println!("seed {seed}");
        Chaos::new(seed).run();
    }
}
