//! What follows a failure: restarted after a backoff, quarantined, or escalated. Plain state machines of what failed
//! and when: no clock, no timer, no randomness (jitter is an argument), no actor.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Which siblings are restarted with an essential child that failed. The failure of an isolated child is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Nobody else.
    OneForOne,
    /// Those that were started after it.
    RestForOne,
    /// All.
    OneForAll,
}

/// What a child's failing for good means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Importance {
    /// Nothing works without it: over the intensity its supervisor fails, at the root the process ends. Essential
    /// siblings share one intensity.
    Essential,
    /// Over the intensity, which is its own, it alone is quarantined.
    Isolated,
}

/// How many restarts are borne within how long.
///
/// A backoff that grows beyond `within / restarts_max` keeps a child that always fails under the intensity: it is then
/// tried at `Backoff::max` for ever, which is what a broker connection wants and nothing else does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intensity {
    /// So many restarts are borne; the next failure is over it. 0: none is.
    pub restarts_max: u32,
    /// The length of the window.
    pub within: Duration,
}

impl Intensity {
    /// Restarted for ever.
    pub const UNLIMITED: Self = Self { restarts_max: u32::MAX, within: Duration::ZERO };
    /// Never restarted: the first failure is over it.
    pub const NONE: Self = Self { restarts_max: 0, within: Duration::ZERO };

    /// How many restarts are borne within the window; `None`: there is no limit.
    pub fn limit(&self) -> Option<u32> {
        (*self != Self::UNLIMITED).then_some(self.restarts_max)
    }
}

/// How long to wait before the next attempt: `first`, then `factor` times as long after each failure, up to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The longest wait after the first failure.
    pub first: Duration,
    /// By how much each wait is longer than the one before.
    pub factor: f64,
    /// No wait is longer.
    pub max: Duration,
    /// The part of each wait that is left to chance, from 0 (none) to 1 (full jitter).
    pub jitter: f64,
    /// After this long without a failure the next wait is the first again.
    pub reset_after: Duration,
}

impl Backoff {
    /// The wait before attempt `attempt` (the first is 1), for a `chance` from 0 to 1.
    pub fn delay(&self, attempt: u32, chance: f64) -> Duration {
        let growth = self.factor.max(1.0).powf(f64::from(attempt.saturating_sub(1)));
        let longest = (self.first.as_secs_f64() * growth).min(self.max.as_secs_f64());
        let kept = 1.0 - self.jitter.clamp(0.0, 1.0) * chance.clamp(0.0, 1.0);
        Duration::try_from_secs_f64(longest * kept).unwrap_or(self.max).min(self.max)
    }
}

/// What a child's failures lead to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// What is borne.
    pub intensity: Intensity,
    /// The waits before restarts.
    pub backoff: Backoff,
    /// The waits in quarantine. After one the child has a single attempt, until it has worked for `reset_after`.
    pub quarantine: Backoff,
}

impl Default for Policy {
    /// Five restarts in a minute, after 0.1 to 10 s; quarantines of 30 s to 30 min.
    fn default() -> Self {
        Self {
            intensity: Intensity { restarts_max: 5, within: Duration::from_secs(60) },
            backoff: Backoff {
                first: Duration::from_millis(100),
                factor: 2.0,
                max: Duration::from_secs(10),
                jitter: 0.2,
                reset_after: Duration::from_secs(60),
            },
            quarantine: Backoff {
                first: Duration::from_secs(30),
                factor: 2.0,
                max: Duration::from_secs(30 * 60),
                jitter: 0.2,
                reset_after: Duration::from_secs(5 * 60),
            },
        }
    }
}

/// What follows one failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// It is started again after that long.
    Restart {
        /// The wait.
        after: Duration,
    },
    /// It is left alone for that long, then tried once.
    Quarantine {
        /// The wait.
        after: Duration,
    },
    /// The supervisor fails.
    Escalate,
}

/// The failures of one child, or of the essential children of one supervisor, as far as they still matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    borne: VecDeque<Instant>,
    in_a_row: u32,
    quarantines: u32,
    resumed_at: Option<Instant>,
}

impl Record {
    /// A failure at `now`, with a `chance` from 0 to 1 for the jitter.
    pub fn failed(&mut self, policy: &Policy, importance: Importance, now: Instant, chance: f64) -> Decision {
        self.forget(policy, now);
        if self.is_on_trial() || self.borne(policy, now) >= policy.intensity.restarts_max {
            return self.over(policy, importance, chance);
        }
        if policy.intensity != Intensity::UNLIMITED {
            self.borne.push_back(now);
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.resumed_at = None;
        Decision::Restart { after: policy.backoff.delay(self.in_a_row, chance) }
    }

    /// It works again since `now`.
    pub fn resumed(&mut self, now: Instant) {
        self.resumed_at = Some(now);
    }

    /// An operator says that what was wrong is mended: all is forgotten.
    pub fn released(&mut self) {
        *self = Self::default();
    }

    /// How many failures there were without a time of good work between them.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// How many restarts were borne within the window that ends `now`.
    pub fn borne(&self, policy: &Policy, now: Instant) -> u32 {
        let within = |at: &&Instant| now.saturating_duration_since(**at) < policy.intensity.within;
        u32::try_from(self.borne.iter().filter(within).count()).unwrap_or(u32::MAX)
    }

    /// Whether the next failure means quarantine whatever the window says: the last one has ended not long ago.
    pub fn is_on_trial(&self) -> bool {
        self.quarantines > 0
    }

    fn over(&mut self, policy: &Policy, importance: Importance, chance: f64) -> Decision {
        self.borne.clear();
        self.in_a_row = 0;
        self.resumed_at = None;
        match importance {
            Importance::Essential => Decision::Escalate,
            Importance::Isolated => {
                self.quarantines = self.quarantines.saturating_add(1);
                Decision::Quarantine { after: policy.quarantine.delay(self.quarantines, chance) }
            }
        }
    }

    fn forget(&mut self, policy: &Policy, now: Instant) {
        let worked = self.resumed_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if worked >= policy.backoff.reset_after {
            self.in_a_row = 0;
        }
        if worked >= policy.quarantine.reset_after {
            self.quarantines = 0;
        }
        while self.borne.front().is_some_and(|at| now.saturating_duration_since(*at) >= policy.intensity.within) {
            self.borne.pop_front();
        }
    }
}

/// What follows the failure of one of several children.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// `halt` (in this order) stop working; when all are down and `after` has passed, `start` (in this order) are
    /// started again. The child that failed is among `start` only.
    Restart {
        /// Siblings that the strategy takes along, the last started first.
        halt: Vec<usize>,
        /// Those and the child, in the order of their start.
        start: Vec<usize>,
        /// The wait.
        after: Duration,
    },
    /// That child alone is left alone for that long.
    Quarantine {
        /// The wait.
        after: Duration,
    },
    /// The supervisor fails.
    Escalate,
}

/// The children of one supervisor, numbered in the order of their start.
#[derive(Clone, Debug)]
pub struct Siblings {
    strategy: Strategy,
    policy: Policy,
    shared: Record,
    children: Vec<Child>,
}

#[derive(Clone, Debug)]
struct Child {
    importance: Importance,
    policy: Policy,
    own: Record,
    quarantined: bool,
}

impl Siblings {
    /// None yet. `policy` is the one for essential children, and for isolated ones without their own.
    pub fn new(strategy: Strategy, policy: Policy) -> Self {
        Self { strategy, policy, shared: Record::default(), children: Vec::new() }
    }

    /// One more, started after those before it. Of an essential one's own policy only [`Intensity::NONE`] counts.
    pub fn push(&mut self, importance: Importance, policy: Option<Policy>) {
        let policy = policy.unwrap_or(self.policy);
        self.children.push(Child { importance, policy, own: Record::default(), quarantined: false });
    }

    /// Child number `failed` has failed at `now`; `chance` as for [`Record::failed`].
    pub fn failed(&mut self, failed: usize, now: Instant, chance: f64) -> Verdict {
        let Some(child) = self.children.get_mut(failed) else {
            return Verdict::Escalate;
        };
        let decision = match child.importance {
            Importance::Essential if child.policy.intensity == Intensity::NONE => Decision::Escalate,
            Importance::Essential => self.shared.failed(&self.policy, Importance::Essential, now, chance),
            Importance::Isolated => child.own.failed(&child.policy, Importance::Isolated, now, chance),
        };
        match decision {
            Decision::Escalate => Verdict::Escalate,
            Decision::Quarantine { after } => {
                child.quarantined = true;
                Verdict::Quarantine { after }
            }
            Decision::Restart { after } => {
                let start = self.together(failed);
                let halt = start.iter().rev().copied().filter(|sibling| *sibling != failed).collect();
                Verdict::Restart { halt, start, after }
            }
        }
    }

    /// Child number `child` works again since `now`.
    pub fn resumed(&mut self, child: usize, now: Instant) {
        let Some(child) = self.children.get_mut(child) else { return };
        child.quarantined = false;
        match child.importance {
            Importance::Essential => self.shared.resumed(now),
            Importance::Isolated => child.own.resumed(now),
        }
    }

    /// An operator says that what was wrong with that child is mended.
    pub fn released(&mut self, child: usize) {
        let Some(child) = self.children.get_mut(child) else { return };
        child.quarantined = false;
        child.own.released();
    }

    /// A supervisor that starts anew has forgotten everything.
    pub fn forget(&mut self) {
        self.shared.released();
        for child in &mut self.children {
            child.own.released();
            child.quarantined = false;
        }
    }

    /// The failures that count for that child, and the policy that they are counted by.
    pub fn record(&self, child: usize) -> (&Record, &Policy) {
        match self.children.get(child) {
            Some(child) if child.importance == Importance::Isolated => (&child.own, &child.policy),
            Some(_) | None => (&self.shared, &self.policy),
        }
    }

    /// Who is started again when `child` is: itself and those the strategy names, without the quarantined ones.
    pub fn together(&self, child: usize) -> Vec<usize> {
        let importance = self.children.get(child).map(|child| child.importance);
        let strategy = if importance == Some(Importance::Isolated) { Strategy::OneForOne } else { self.strategy };
        let with = match strategy {
            Strategy::OneForOne => child..child + 1,
            Strategy::RestForOne => child..self.children.len(),
            Strategy::OneForAll => 0..self.children.len(),
        };
        with.filter(|sibling| {
            *sibling == child || self.children.get(*sibling).is_some_and(|sibling| !sibling.quarantined)
        })
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy as Generate, prop, prop_assert, proptest};

    use super::*;

    fn policy() -> Policy {
        let backoff = Backoff { jitter: 0.0, ..Policy::default().backoff };
        let intensity = Intensity { restarts_max: 3, within: Duration::from_secs(60) };
        Policy { intensity, backoff, ..Policy::default() }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn restart_ms(decision: Decision) -> u128 {
        let Decision::Restart { after } = decision else { panic!("{decision:?}") };
        after.as_millis()
    }

    #[test]
    fn so_many_in_the_window_are_borne_and_no_more() {
        let start = Instant::now();
        let mut record = Record::default();
        for failure in 0..3 {
            let decision = record.failed(&policy(), Importance::Essential, start + secs(failure * 20), 0.5);
            assert!(matches!(decision, Decision::Restart { .. }), "{failure}");
        }
        assert_eq!(record.borne(&policy(), start + secs(59)), 3);
        let mut later = record.clone();
        assert_eq!(record.failed(&policy(), Importance::Essential, start + secs(59), 0.5), Decision::Escalate);
        let decision = later.failed(&policy(), Importance::Essential, start + secs(60), 0.5);
        assert!(matches!(decision, Decision::Restart { .. }), "the first has left the window");
    }

    #[test]
    fn waits_grow_and_begin_anew_only_after_it_has_worked_for_long_enough() {
        let mut policy = policy();
        policy.intensity = Intensity::UNLIMITED;
        let mut now = Instant::now();
        let mut record = Record::default();
        let waits: Vec<_> =
            (0..9).map(|_| restart_ms(record.failed(&policy, Importance::Isolated, now, 0.0))).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        // An hour down is not an hour of work.
        now += secs(3_600);
        assert_eq!(restart_ms(record.failed(&policy, Importance::Isolated, now, 0.0)), 10_000);
        record.resumed(now);
        assert_eq!(restart_ms(record.failed(&policy, Importance::Isolated, now + secs(59), 0.0)), 10_000);
        record.resumed(now);
        assert_eq!(restart_ms(record.failed(&policy, Importance::Isolated, now + secs(60), 0.0)), 100);
    }

    #[test]
    fn after_a_quarantine_one_failure_is_enough_until_it_has_worked_for_long_enough() {
        let policy = Policy { intensity: Intensity { restarts_max: 0, within: secs(60) }, ..policy() };
        let mut record = Record::default();
        let mut now = Instant::now();
        let mut quarantined = |record: &mut Record, after: Duration| {
            record.resumed(now);
            now += after;
            match record.failed(&policy, Importance::Isolated, now, 0.0) {
                Decision::Quarantine { after } => after.as_secs(),
                other @ (Decision::Restart { .. } | Decision::Escalate) => panic!("{other:?}"),
            }
        };
        assert_eq!(quarantined(&mut record, secs(1)), 30);
        assert!(record.is_on_trial());
        assert_eq!(quarantined(&mut record, secs(299)), 60);
        assert_eq!(quarantined(&mut record, secs(300)), 30);
        record.released();
        assert!(!record.is_on_trial());
    }

    #[test]
    fn an_essential_one_that_is_never_restarted_escalates_at_once_and_alone() {
        let mut siblings = Siblings::new(Strategy::OneForOne, policy());
        siblings.push(Importance::Essential, Some(Policy { intensity: Intensity::NONE, ..policy() }));
        siblings.push(Importance::Essential, None);
        assert!(matches!(siblings.failed(1, Instant::now(), 0.0), Verdict::Restart { .. }));
        assert_eq!(siblings.failed(0, Instant::now(), 0.0), Verdict::Escalate);
    }

    #[test]
    fn an_isolated_sibling_neither_takes_others_along_nor_counts_against_them() {
        let mut siblings = Siblings::new(Strategy::OneForAll, policy());
        siblings.push(Importance::Essential, None);
        siblings.push(Importance::Isolated, None);
        siblings.push(Importance::Essential, None);
        let now = Instant::now();
        for _ in 0..3 {
            let verdict = siblings.failed(1, now, 0.0);
            assert!(matches!(&verdict, Verdict::Restart { halt, start, .. } if halt.is_empty() && start == &[1]));
        }
        assert!(matches!(siblings.failed(1, now, 0.0), Verdict::Quarantine { .. }));
        let verdict = siblings.failed(2, now, 0.0);
        let Verdict::Restart { halt, start, .. } = verdict else { panic!("{verdict:?}") };
        assert_eq!((halt, start), (vec![0], vec![0, 2]), "the quarantined one is left alone");
    }

    fn any_backoff() -> impl Generate<Value = Backoff> {
        (1..5_000u64, 1.0..10.0f64, 1..100_000u64, 0.0..=1.0f64).prop_map(|(first, factor, max, jitter)| Backoff {
            first: Duration::from_millis(first),
            factor,
            max: Duration::from_millis(max),
            jitter,
            reset_after: secs(60),
        })
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_allowed_nor_shorter_than_its_jitter_lets_it(
            backoff in any_backoff(), attempt in 1..10_000u32, chance in 0.0..=1.0f64,
        ) {
            let wait = backoff.delay(attempt, chance);
            let longest = Backoff { jitter: 0.0, ..backoff }.delay(attempt, 0.0);
            prop_assert!(wait <= longest && longest <= backoff.max);
            prop_assert!(wait.as_secs_f64() >= longest.as_secs_f64() * (1.0 - backoff.jitter) - 1e-6);
            prop_assert!(longest <= Backoff { jitter: 0.0, ..backoff }.delay(attempt + 1, 0.0), "it never shrinks");
        }

        #[test]
        fn no_window_ever_holds_more_restarts_than_are_borne(
            gaps in prop::collection::vec(0..30_000u64, 1..200), restarts_max in 0..6u32, isolated: bool,
        ) {
            let policy = Policy { intensity: Intensity { restarts_max, within: secs(60) }, ..policy() };
            let importance = if isolated { Importance::Isolated } else { Importance::Essential };
            let mut record = Record::default();
            let mut now = Instant::now();
            let mut restarts: Vec<Instant> = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                match record.failed(&policy, importance, now, 0.3) {
                    Decision::Restart { .. } => restarts.push(now),
                    Decision::Quarantine { .. } => prop_assert!(isolated),
                    Decision::Escalate => {
                        prop_assert!(!isolated);
                        break;
                    }
                }
                let within = restarts.iter().filter(|at| now - **at < secs(60)).count();
                prop_assert!(within <= restarts_max as usize);
                prop_assert!(record.borne.len() <= restarts_max as usize);
            }
        }
    }
}
