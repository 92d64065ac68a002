//! The subscriber of the simulation, and how its handlers and effects behave: some fail, panic, hang, or do their work and
//! fail afterwards. All of it is drawn from the seed, event by event.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::inbox::{DocumentKey, TransactionId, Which};
use actors::order::{OrderId, Version};
use actors::subscriber::{Cause, Documents, Event, Failure, Outcome, OutcomeKind, Subscriber};
use actors::testing::inbox::MemoryInbox;
use actors::testing::memory::Memory;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::book::Book;
use super::line::Line;

/// What all lives of the subscriber share: the world outside of them.
pub(crate) struct Stage {
    pub(crate) book: Book,
    pub(crate) memory: Memory,
    pub(crate) inbox: MemoryInbox,
    seed: u64,
    /// How often something goes wrong, from 0 to 1.
    temper: f64,
    scene: Mutex<Scene>,
}

#[derive(Default)]
struct Scene {
    healed: bool,
    dependency_down: bool,
    /// How often what was tried.
    tried: BTreeMap<Deed, u32>,
    performed: BTreeSet<Deed>,
    /// Transactions that are stored.
    stored: HashSet<TransactionId>,
    /// What operators let go.
    discarded: BTreeSet<Deed>,
}

/// Handling an event, or performing one of its effects.
pub(crate) type Deed = (OrderId, Version, Option<u32>);

/// How something goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Fine,
    Slow,
    Fails,
    Panics,
    Hangs,
    /// It is done, and fails all the same.
    FailsAfterwards,
    Away,
    Poison,
}

impl Stage {
    pub(crate) fn new(book: Book, memory: Memory, inbox: MemoryInbox, seed: u64, temper: f64) -> Arc<Self> {
        Arc::new(Self { book, memory, inbox, seed, temper, scene: Mutex::default() })
    }

    /// Whatever was wrong with handlers and with what they need is mended.
    pub(crate) fn heal(&self) {
        let mut scene = self.scene();
        scene.healed = true;
        scene.dependency_down = false;
    }

    /// Something that every handler needs is away, or back.
    pub(crate) fn set_dependency_down(&self, down: bool) {
        self.scene().dependency_down = down;
    }

    /// Every effect that was performed.
    pub(crate) fn performed(&self) -> BTreeSet<Deed> {
        self.scene().performed.clone()
    }

    /// An operator let it go, and that is stored.
    pub(crate) fn discard(&self, deed: Deed) {
        self.scene().discarded.insert(deed);
    }

    /// Whether an operator let it go.
    pub(crate) fn is_discarded(&self, deed: Deed) -> bool {
        self.scene().discarded.contains(&deed)
    }

    /// The order's events up to that version, but for those that operators let go.
    pub(crate) fn kept(&self, order: OrderId, last: Version) -> Vec<u32> {
        let scene = self.scene();
        (1..=last.0).filter(|version| !scene.discarded.contains(&(order, Version(*version), None))).collect()
    }

    /// The transaction is stored. Whether it was not before.
    pub(crate) fn store(&self, transaction: TransactionId) -> bool {
        self.scene().stored.insert(transaction)
    }

    /// Whether the transaction is stored.
    pub(crate) fn is_stored(&self, transaction: TransactionId) -> bool {
        self.scene().stored.contains(&transaction)
    }

    fn mood(&self, deed: Deed) -> Mood {
        let mut scene = self.scene();
        if scene.healed {
            return Mood::Fine;
        }
        if scene.dependency_down {
            return Mood::Away;
        }
        let tried = scene.tried.entry(deed).or_default();
        *tried += 1;
        let (order, version, effect) = deed;
        let place = u64::from(version.0) << 8 | effect.map_or(0, |effect| u64::from(effect) + 1);
        let [high, low] = [order.as_uuid().as_u64_pair().0, order.as_uuid().as_u64_pair().1];
        let mut rng = SmallRng::seed_from_u64(self.seed ^ high ^ low.rotate_left(17) ^ place.rotate_left(40));
        if !rng.random_bool(self.temper) {
            return Mood::Fine;
        }
        if rng.random_bool(0.15) {
            return Mood::Poison;
        }
        let times = rng.random_range(1..4);
        let mood = match rng.random_range(0..6) {
            0 => Mood::Fails,
            1 => Mood::Panics,
            2 => Mood::Hangs,
            3 => Mood::FailsAfterwards,
            4 => Mood::Away,
            _ => Mood::Slow,
        };
        if *tried <= times { mood } else { Mood::Fine }
    }

    /// Something outside was done. Only what is recorded may be, and only behind what came before it in its order.
    fn done(&self, deed: Deed) {
        let (order, version, index) = deed;
        let book = &self.book;
        let effects = self.inbox.effects_now(&[order], Which::All, usize::MAX);
        let is = |effect: &actors::inbox::NewEffect| (effect.order, effect.version, Some(effect.id.index));
        let committed = effects.iter().any(|effect| is(&effect.effect) == deed);
        book.demand(committed, || format!("effect {index:?} of {order} {version} is performed before its commit"));
        let mut scene = self.scene();
        if !scene.performed.insert(deed) {
            return;
        }
        let skipped = effects.iter().find(|effect| {
            let earlier = is(&effect.effect);
            earlier < deed && effect.outcome.is_none() && !scene.performed.contains(&earlier)
        });
        book.demand(skipped.is_none(), || format!("effect {index:?} of {order} {version} overtakes {skipped:?}"));
    }

    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mood {
    async fn pass(self) -> Result<(), Failure> {
        match self {
            Self::Fine | Self::FailsAfterwards => Ok(()),
            Self::Slow => {
                tokio::time::sleep(Duration::from_millis(60)).await;
                Ok(())
            }
            Self::Fails => Err(Failure::transient("not now")),
            Self::Panics => panic!("the handler said no"),
            Self::Hangs => std::future::pending().await,
            Self::Away => Err(Failure::dependency_down("away")),
            Self::Poison => Err(Failure::permanent("never")),
        }
    }

    fn afterwards(self) -> Result<(), Failure> {
        match self {
            Self::FailsAfterwards => Err(Failure::transient("who knows")),
            Self::Fine | Self::Slow | Self::Fails | Self::Panics | Self::Hangs | Self::Away | Self::Poison => Ok(()),
        }
    }
}

/// What is counted over all orders.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub(crate) events: u64,
    pub(crate) types: BTreeMap<String, u64>,
}

/// Writes down every version in its order's document, and counts types of events in one document that all orders share.
/// Event `v` asks for `v` modulo 3 effects.
pub(crate) struct Tally {
    pub(crate) stage: Arc<Stage>,
    pub(crate) line: Arc<Line>,
    /// Whether it says beforehand what it reads.
    pub(crate) says_reads: bool,
}

impl Tally {
    pub(crate) fn own(order: OrderId) -> DocumentKey {
        DocumentKey { collection: "orders".into(), id: order.to_string() }
    }

    pub(crate) fn shared() -> DocumentKey {
        DocumentKey { collection: "sums".into(), id: "all".to_owned() }
    }

    /// How many effects the event asks for.
    pub(crate) fn effects(version: Version) -> u32 {
        version.0 % 3
    }
}

#[async_trait::async_trait]
impl Subscriber for Tally {
    const NAME: &'static str = "tally";

    type Effect = u32;

    fn reads(&self, event: &Event<'_>) -> Vec<DocumentKey> {
        if self.says_reads { vec![Self::shared(), Self::own(event.order())] } else { Vec::new() }
    }

    async fn handle(&self, event: &Event<'_>, documents: &mut Documents<'_>) -> Result<Vec<u32>, Failure> {
        let (order, version) = (event.order(), event.version());
        let mood = self.stage.mood((order, version, None));
        self.stage.book.note(|| format!("{} handles {order} {version}: {mood:?}", self.line.name()));
        let mut sums: Sums = documents.get("sums", "all").await?.unwrap_or_default();
        sums.events += 1;
        *sums.types.entry(event.envelope.event_type.clone()).or_default() += 1;
        documents.put("sums", "all", &sums)?;
        mood.pass().await?;
        let mut versions: Vec<u32> = documents.get("orders", order).await?.unwrap_or_default();
        versions.push(version.0);
        documents.put("orders", order, &versions)?;
        mood.afterwards()?;
        Ok((0..Self::effects(version)).collect())
    }

    async fn perform(&self, _: &u32, cause: &Cause) -> Result<Outcome, Failure> {
        let deed = (cause.order, cause.version, Some(cause.effect.index));
        let mood = self.stage.mood(deed);
        let perform = async {
            mood.pass().await?;
            self.stage.done(deed);
            mood.afterwards()
        };
        self.line.call(|| format!("perform {deed:?}: {mood:?}"), perform).await?;
        Ok(Outcome { kind: OutcomeKind::Performed, detail: String::new() })
    }
}
