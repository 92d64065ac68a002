//! The live tree of supervisors and what they supervise, as data. Whoever supervises writes to its own node; reading
//! takes each node's lock for a moment, and what is read is bounded.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::time::Instant;

use super::child::Handle;
use super::ledger::{Entry, Ledger};
use super::panic;
use super::policy::{Importance, Policy, Record};
use crate::clock::{Clock, Timestamp};

/// Of children that come and go (orders), a node lists at most so many that have failed lately.
pub const MEMBERS_MAX: usize = 100;

/// How long "lately" is.
pub const MEMBER_SHOWN_FOR: Duration = Duration::from_secs(3_600);

/// When so many children of a node are in quarantine at once, it is an alert.
pub const QUARANTINED_ALERT: u64 = 10;

const FIGURES_MAX: usize = 32;

/// A place in the tree. Cheap to clone; also what a child needs to be started below it.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    path: Arc<str>,
    kind: &'static str,
    importance: Importance,
    parent: Weak<Inner>,
    office: Arc<Office>,
    /// How many children are alive that are not listed one by one.
    live: AtomicU64,
    quarantined: AtomicU64,
    board: Mutex<Board>,
}

struct Office {
    clock: Arc<dyn Clock>,
    ledger: Ledger,
    chance: Mutex<StdRng>,
}

struct Board {
    status: Status,
    since: Timestamp,
    record: Record,
    policy: Option<Arc<Policy>>,
    restarts_total: u64,
    last_failure: Option<Arc<Entry>>,
    figures: BTreeMap<&'static str, u64>,
    children: Vec<Node>,
    members: VecDeque<Node>,
    handle: Option<Handle>,
}

/// What a child is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Status {
    /// Not yet started.
    Starting,
    /// It works.
    Running,
    /// It has failed, or must wait for one that has, and will be started again.
    BackingOff {
        /// When.
        until: Timestamp,
    },
    /// It failed too often and is left alone.
    Quarantined {
        /// When it is tried again.
        until: Timestamp,
    },
    /// It has ended as it was asked to.
    Stopped,
    /// It has ended and will not be started again by its supervisor.
    Failed,
}

/// A node as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct NodeView {
    /// The last part of the path.
    pub name: String,
    /// The names from the root, with `/` between them.
    pub path: Arc<str>,
    /// `order`, `shard`, `supervisor`, …
    pub kind: &'static str,
    /// Essential or isolated.
    pub importance: Importance,
    /// What it is doing.
    #[serde(flatten)]
    pub status: Status,
    /// Since when.
    pub since: Timestamp,
    /// Restarts within the present window, or in a row where there is no limit.
    pub restarts: u32,
    /// How many are borne. `None`: there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts_max: Option<u32>,
    /// The length of the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<u64>,
    /// Restarts since the process started.
    pub restarts_total: u64,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Arc<Entry>>,
    /// How many children are alive that are not listed one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<u64>,
    /// How many children are in quarantine.
    pub quarantined: u64,
    /// Whether these are so many that somebody should look.
    pub alert: bool,
    /// What the child itself publishes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<&'static str, u64>,
    /// The children in the order of their start, then those that failed lately, the latest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<NodeView>,
}

impl Node {
    /// The root of a tree. `seed` makes the jitter of backoffs repeatable. Also installs the panic hook.
    pub fn root(name: &str, clock: Arc<dyn Clock>, ledger: Ledger, seed: u64) -> Self {
        panic::install_hook();
        let office = Office { clock, ledger, chance: Mutex::new(StdRng::seed_from_u64(seed)) };
        Self::new(name.into(), "supervisor", Importance::Essential, Weak::new(), Arc::new(office))
    }

    /// The child of that name, made if there is none.
    pub fn child(&self, name: &str, kind: &'static str, importance: Importance) -> Self {
        let path = self.path_of(name);
        let mut board = self.board();
        if let Some(there) = board.children.iter().find(|child| child.0.path == path) {
            return there.clone();
        }
        let child = self.below(path, kind, importance);
        board.children.push(child.clone());
        child
    }

    /// A child that comes and goes: listed because it has failed, as long as there is room.
    pub(super) fn member(&self, path: Arc<str>, kind: &'static str, importance: Importance) -> Self {
        let member = self.below(path, kind, importance);
        self.list(&member);
        member
    }

    /// Puts a member at the head of the list; what falls out at the end is the one that failed longest ago, one that
    /// is not in quarantine if there is any.
    pub(super) fn list(&self, member: &Self) {
        let mut board = self.board();
        board.members.retain(|other| other.0.path != member.0.path);
        if board.members.len() >= MEMBERS_MAX {
            let free = board.members.iter().rposition(|other| !other.is_quarantined());
            let last = free.unwrap_or(board.members.len() - 1);
            board.members.remove(last);
        }
        board.members.push_front(member.clone());
    }

    /// The names from the root, with `/` between them.
    pub fn path(&self) -> &Arc<str> {
        &self.0.path
    }

    /// What it is.
    pub fn kind(&self) -> &'static str {
        self.0.kind
    }

    /// Essential or isolated.
    pub fn importance(&self) -> Importance {
        self.0.importance
    }

    /// The ledger of this tree.
    pub fn ledger(&self) -> &Ledger {
        &self.0.office.ledger
    }

    /// Publishes a figure of this node: a mailbox length, a lag. At most 32 names are kept.
    pub fn figure(&self, name: &'static str, value: u64) {
        let mut board = self.board();
        if board.figures.len() < FIGURES_MAX || board.figures.contains_key(name) {
            board.figures.insert(name, value);
        }
    }

    /// The node at that path, this one or one below.
    pub fn find(&self, path: &str) -> Option<Self> {
        if *self.0.path == *path {
            return Some(self.clone());
        }
        let rest = path.strip_prefix(&*self.0.path)?;
        if !rest.starts_with('/') {
            return None;
        }
        let below: Vec<_> = {
            let board = self.board();
            board.children.iter().chain(&board.members).cloned().collect()
        };
        below.iter().find_map(|node| node.find(path))
    }

    /// The child's handle, for an operator: to restart it now or to release it. None before it was started.
    pub fn handle(&self) -> Option<Handle> {
        self.board().handle.clone()
    }

    /// This node and all below as they are now.
    pub fn view(&self) -> NodeView {
        let (mut view, children, members) = self.view_alone();
        view.children = children.iter().map(Self::view).collect();
        let now = self.now();
        let lately = |member: &NodeView| {
            let failed_at = member.last_failure.as_ref().map(|failure| failure.at);
            let working = matches!(member.status, Status::Running | Status::Stopped);
            !working || failed_at.is_some_and(|at| now.since(at) < MEMBER_SHOWN_FOR)
        };
        view.children.extend(members.iter().map(Self::view).filter(lately));
        view
    }

    fn view_alone(&self) -> (NodeView, Vec<Self>, VecDeque<Self>) {
        let board = self.board();
        let quarantined = self.0.quarantined.load(Ordering::Relaxed);
        let live = self.0.live.load(Ordering::Relaxed);
        let policy = board.policy.as_deref();
        let view = NodeView {
            name: self.0.path.rsplit('/').next().unwrap_or_default().to_owned(),
            path: Arc::clone(&self.0.path),
            kind: self.0.kind,
            importance: self.0.importance,
            status: board.status,
            since: board.since,
            restarts: policy.map_or(0, |policy| match policy.intensity.limit() {
                Some(_) => board.record.borne(policy, Instant::now()),
                None => board.record.in_a_row(),
            }),
            restarts_max: policy.and_then(|policy| policy.intensity.limit()),
            within_ms: policy.map(|policy| millis(policy.intensity.within)),
            restarts_total: board.restarts_total,
            last_failure: board.last_failure.clone(),
            live: (live > 0).then_some(live),
            quarantined,
            alert: quarantined >= QUARANTINED_ALERT,
            figures: board.figures.clone(),
            children: Vec::new(),
        };
        (view, board.children.clone(), board.members.clone())
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.office.clock.now()
    }

    /// A number from 0 to 1, for jitter.
    pub(crate) fn chance(&self) -> f64 {
        self.0.office.chance.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    pub(super) fn path_of(&self, name: &str) -> Arc<str> {
        format!("{}/{name}", self.0.path).into()
    }

    pub(super) fn set_handle(&self, handle: Handle) {
        self.board().handle = Some(handle);
    }

    pub(super) fn set_policy(&self, policy: Arc<Policy>) {
        self.board().policy = Some(policy);
    }

    pub(super) fn count_live(&self, more: bool) {
        if more {
            self.0.live.fetch_add(1, Ordering::Relaxed);
        } else {
            self.0.live.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn failed(&self, failure: Arc<Entry>, record: Record) {
        let mut board = self.board();
        board.last_failure = Some(failure);
        board.record = record;
    }

    pub(super) fn restarted(&self) {
        self.board().restarts_total += 1;
        self.set_status(Status::Running);
    }

    pub(super) fn set_status(&self, status: Status) {
        let before = {
            let mut board = self.board();
            if board.status != status {
                board.since = self.now();
            }
            std::mem::replace(&mut board.status, status)
        };
        let (was, is) = (matches!(before, Status::Quarantined { .. }), matches!(status, Status::Quarantined { .. }));
        if was != is
            && let Some(parent) = self.0.parent.upgrade()
        {
            Self(parent).count_quarantined(is);
        }
    }

    fn count_quarantined(&self, more: bool) {
        if !more {
            self.0.quarantined.fetch_sub(1, Ordering::Relaxed);
        } else if self.0.quarantined.fetch_add(1, Ordering::Relaxed) + 1 == QUARANTINED_ALERT {
            tracing::error!(path = &*self.0.path, quarantined = QUARANTINED_ALERT, "many are in quarantine at once");
        }
    }

    fn is_quarantined(&self) -> bool {
        matches!(self.board().status, Status::Quarantined { .. })
    }

    fn below(&self, path: Arc<str>, kind: &'static str, importance: Importance) -> Self {
        Self::new(path, kind, importance, Arc::downgrade(&self.0), Arc::clone(&self.0.office))
    }

    fn new(
        path: Arc<str>,
        kind: &'static str,
        importance: Importance,
        parent: Weak<Inner>,
        office: Arc<Office>,
    ) -> Self {
        let board = Board {
            status: Status::Starting,
            since: office.clock.now(),
            record: Record::default(),
            policy: None,
            restarts_total: 0,
            last_failure: None,
            figures: BTreeMap::new(),
            children: Vec::new(),
            members: VecDeque::new(),
            handle: None,
        };
        let (live, quarantined) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { path, kind, importance, parent, office, live, quarantined, board: Mutex::new(board) }))
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.0.path).finish()
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
