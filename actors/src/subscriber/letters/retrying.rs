//! Retries many letters at once: exactly as many as the operator was shown, and no faster than was said. The rate is
//! written into the rows, as the time of each lane's next attempt: so it holds whoever is at work, and over restarts. While
//! nobody is at work the time passes all the same: what is due by then begins at once.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::survey::{Filter, GroupCount};
use super::{DryRun, Group, LetterError, LetterId, Letters, Written, intervention, write};
use crate::clock::Timestamp;
use crate::inbox::{Failure, Transaction};
use crate::order::OrderId;

/// Most letters that are retried at once.
pub const RETRIES_MAX: u64 = 100_000;
/// The fastest that retries begin.
pub const PER_SECOND_MAX: u32 = 10_000;
/// The longest time over which retries are spread: whoever wants more does it in parts.
pub const SPREAD_MAX: Duration = Duration::from_secs(600);
/// Rows of one transaction.
const ROWS_WRITTEN: usize = 100;
/// Handlers of a dry run that run at once.
const DRY_RUNS_AT_ONCE: usize = 4;

/// What is to be retried.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryAll {
    /// Which letters.
    pub filter: Filter,
    /// How many they are, exactly.
    pub count: u64,
    /// How many begin in a second.
    pub per_second: u32,
    /// When to stop, whatever is left.
    pub until: Instant,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retried {
    /// Letters that are tried again.
    pub retried: u64,
    /// Letters that were handled, discarded or retried by somebody else meanwhile.
    pub changed: u64,
    /// Letters that nothing was done about: the time was over, or the store went away.
    pub left: u64,
    /// Why some are left.
    pub trouble: Option<String>,
    /// When the last one begins.
    pub last_at: Option<Timestamp>,
    /// A subscriber of some of them rests: those begin when it goes on, all at once that are due by then.
    pub resting: bool,
}

/// What a dry run of many letters found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tried {
    /// Letters that were tried.
    pub tried: u64,
    /// Events that would be handled.
    pub applied: u64,
    /// Effects that would be performed; whether that succeeds only performing them says.
    pub effects: u64,
    /// Letters that would fail.
    pub failed: u64,
    /// How, the most frequent first.
    pub groups: Vec<GroupCount>,
    /// Letters that were handled or changed meanwhile.
    pub changed: u64,
    /// Letters that were not tried: the time was over.
    pub left: u64,
}

/// The letters of one subscriber that are retried, order by order: an order may have one in each lane.
type Orders = Vec<(OrderId, Vec<LetterId>)>;

impl Letters {
    /// Lets all of them be tried again, a few in each second. What was done stays done when it does not get to the end.
    ///
    /// # Errors
    /// When nothing was done: there are not exactly `count`, there are more than the rate gets through in
    /// [`SPREAD_MAX`], so much is held that it was not looked through in time, or a store did not answer.
    pub async fn retry_all(subscribers: &[Self], asked: &RetryAll) -> Result<Retried, LetterError> {
        let most = (u64::from(asked.per_second) * SPREAD_MAX.as_secs()).min(RETRIES_MAX);
        if asked.count > most {
            return Err(LetterError::TooMany { most });
        }
        let found = Self::found(subscribers, asked).await?;
        let mut done = Retried { left: asked.count, ..Retried::default() };
        for (letters, orders) in found {
            let retried = letters.retry_orders(orders, asked, &mut done).await;
            let Err(error) = retried else { continue };
            if done.retried == 0 {
                return Err(error);
            }
            done.trouble = Some(error.to_string());
            break;
        }
        if done.left > 0 {
            done.trouble.get_or_insert_with(|| "the time for one request was over".to_owned());
        }
        tracing::info!(retried = done.retried, changed = done.changed, left = done.left, "an operator retries many");
        Ok(done)
    }

    /// What each of them would come to, with nothing written and nothing performed.
    ///
    /// # Errors
    /// When there are not exactly `count`, so much is held that it was not looked through in time, or a store did not
    /// answer.
    pub async fn try_all(subscribers: &[Self], asked: &RetryAll) -> Result<Tried, LetterError> {
        let found = Self::found(subscribers, asked).await?;
        let mut tried = Tried { left: asked.count, ..Tried::default() };
        let mut groups: HashMap<Group, GroupCount> = HashMap::new();
        for (letters, orders) in found {
            let ids = stream::iter(orders.into_iter().flat_map(|(_, ids)| ids));
            let runs = ids.take_while(|_| std::future::ready(Instant::now() < asked.until));
            let mut runs = runs.map(|id| letters.dry_run(id)).buffer_unordered(DRY_RUNS_AT_ONCE);
            while let Some(run) = runs.next().await {
                tried.count(run, &mut groups)?;
            }
        }
        tried.groups = groups.into_values().collect();
        tried.groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.group.cmp(&b.group)));
        Ok(tried)
    }

    /// The letters that are asked for, if they are as many as was said.
    async fn found<'a>(subscribers: &'a [Self], asked: &RetryAll) -> Result<Vec<(&'a Self, Orders)>, LetterError> {
        let mut found = Vec::new();
        let mut present = 0;
        for letters in subscribers {
            let mut orders: HashMap<OrderId, Vec<LetterId>> = HashMap::new();
            letters
                .each(&asked.filter, asked.until, |letter| {
                    if !letter.is_at_rest() {
                        return;
                    }
                    present += 1;
                    // Beyond what was said they are only counted.
                    if present <= asked.count {
                        orders.entry(letter.id.order).or_default().push(letter.id);
                    }
                })
                .await?;
            let mut orders: Orders = orders.into_iter().collect();
            orders.sort_unstable();
            found.push((letters, orders));
        }
        if present == asked.count { Ok(found) } else { Err(LetterError::CountDiffers { present }) }
    }

    async fn retry_orders(&self, orders: Orders, asked: &RetryAll, done: &mut Retried) -> Result<(), LetterError> {
        let begin = self.clock.now();
        let _telling = self.telling();
        for (nth, orders) in orders.chunks(ROWS_WRITTEN).enumerate() {
            if Instant::now() >= asked.until {
                return Ok(());
            }
            // The first ones are due at once, not only when all are written.
            let _telling = (nth == 0).then(|| self.telling());
            self.retry_some(orders, begin, asked.per_second, done).await?;
        }
        Ok(())
    }

    /// All in one transaction; those whose rows changed meanwhile are looked at again.
    async fn retry_some(
        &self,
        orders: &[(OrderId, Vec<LetterId>)],
        begin: Timestamp,
        per_second: u32,
        done: &mut Retried,
    ) -> Result<(), LetterError> {
        let letters: u64 = orders.iter().map(|(_, ids)| ids.len() as u64).sum();
        for _ in 0..super::ATTEMPTS_MAX {
            let present = self.inbox.present().await?;
            done.resting |= present.paused;
            let rows = self.inbox.rows(present.generation, orders.iter().map(|(order, _)| *order).collect()).await?;
            let mut transaction = Transaction::of_operator(&present);
            let mut retried = 0;
            for row in &rows {
                let ids = orders.iter().find(|(order, _)| *order == row.order).map(|(_, ids)| ids);
                let nth = |retried: u64| begin.after(Duration::from_secs(done.retried + retried) / per_second.max(1));
                let mut after = row.clone();
                let before = retried;
                for id in ids.into_iter().flatten() {
                    if let Ok(row) = intervention::retry(&after, *id, nth(retried)) {
                        after = row;
                        retried += 1;
                    }
                }
                if retried > before {
                    transaction.rows.push(write(transaction.id, row, after));
                }
            }
            if transaction.is_empty() || self.commit(transaction).await? == Written::Yes {
                let last = Duration::from_secs((done.retried + retried).saturating_sub(1)) / per_second.max(1);
                done.last_at = (retried > 0).then(|| begin.after(last)).or(done.last_at);
                done.retried += retried;
                done.changed += letters - retried;
                done.left -= letters;
                return Ok(());
            }
        }
        Err(LetterError::Contended)
    }
}

impl Tried {
    fn count(
        &mut self,
        run: Result<DryRun, LetterError>,
        groups: &mut HashMap<Group, GroupCount>,
    ) -> Result<(), LetterError> {
        self.left -= 1;
        match run {
            Ok(DryRun::Applied(_) | DryRun::Passed) => self.applied += 1,
            Ok(DryRun::Effect(_)) => self.effects += 1,
            Ok(DryRun::Failed(failure) | DryRun::Undecodable(failure)) => {
                self.failed += 1;
                count_failure(&failure, groups);
            }
            Ok(DryRun::Contradicts | DryRun::NotInLog | DryRun::EndsProcesses) => self.failed += 1,
            Err(LetterError::Refused(_) | LetterError::Unknown(_)) => {
                self.changed += 1;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.tried += 1;
        Ok(())
    }
}

fn count_failure(failure: &Failure, groups: &mut HashMap<Group, GroupCount>) {
    let group = Group::of(failure);
    let counted = groups.entry(group.clone()).or_insert_with(|| GroupCount {
        group,
        kind: Some(failure.kind),
        place: failure.place.as_deref().map(str::to_owned),
        example: failure.text.to_string(),
        count: 0,
    });
    counted.count += 1;
}
