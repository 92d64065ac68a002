//! Looking up which commit is under a key, linearizably: the answer is what was true at some moment after the question.
//! On MongoDB such a read waits for a write to a majority, so those who ask at the same time share one. It never reads
//! ahead, and remembers nothing.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use actors::commit::{CommitId, CommitKey};
use actors::event_store::StoreError;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mongodb::Collection;
use mongodb::bson::{RawDocumentBuf, doc};
use mongodb::options::ReadConcern;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::commits;
use super::server::{Failed, Server};

/// Most questions that wait.
const WAITING_MAX: usize = 16_384;
/// Most keys of a read.
const KEYS_MAX: u32 = 1_000;
/// Most reads under way.
const READS_MAX: usize = 4;
/// How long a read is waited for before another is begun beside it: its connection may be a dead one.
const SLOW: Duration = Duration::from_millis(100);

/// What is stored under some keys.
type Found = Result<HashMap<CommitKey, CommitId>, StoreError>;
type Answer = Result<Option<CommitId>, StoreError>;

/// The door to the shared reads.
#[derive(Debug)]
pub(super) struct Lookup {
    questions: mpsc::Sender<Question>,
    answer_within: Duration,
}

#[derive(Debug)]
struct Question {
    key: CommitKey,
    answer: oneshot::Sender<Answer>,
}

impl Lookup {
    /// On that collection. Works as long as the runtime on which it was made.
    pub(super) fn new(server: &Server, commits: &Collection<RawDocumentBuf>) -> Self {
        let (server, commits) = (server.clone(), commits.clone());
        let answer_within = server.answer_within();
        Self::with(answer_within, move |keys| {
            let (server, commits) = (server.clone(), commits.clone());
            async move { read(&server, &commits, keys).await }
        })
    }

    fn with<R>(answer_within: Duration, read: impl Fn(HashSet<CommitKey>) -> R + Send + Sync + 'static) -> Self
    where
        R: Future<Output = Found> + Send + 'static,
    {
        let (questions, asked) = mpsc::channel(WAITING_MAX);
        tokio::spawn(serve(asked, read));
        Self { questions, answer_within }
    }

    /// Which commit is under that key. Whoever was told before this call that one was written is not contradicted.
    ///
    /// # Errors
    /// When there was no answer in time.
    pub(super) async fn commit_at(&self, key: CommitKey) -> Answer {
        let (answer, answered) = oneshot::channel();
        let away = |why: &str| StoreError::Away(why.to_owned());
        self.questions.try_send(Question { key, answer }).map_err(|_| away("too many wait for a look at the store"))?;
        match timeout(self.answer_within, answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(away("nobody looks at the store any more"))),
            Err(_) => Err(away("MongoDB did not answer a look at the store in time")),
        }
    }
}

/// Answers questions until nobody can ask any more. What is asked while a read is under way waits for the next: that one
/// might have looked at its key before.
async fn serve<R: Future<Output = Found>>(mut asked: mpsc::Receiver<Question>, read: impl Fn(HashSet<CommitKey>) -> R) {
    let mut reads = FuturesUnordered::new();
    let mut questions = Vec::new();
    let mut overdue = false;
    loop {
        let begin = reads.is_empty() || overdue;
        let wait = !begin && reads.len() < READS_MAX;
        tokio::select! {
            biased;
            Some(()) = reads.next() => {}
            asked = asked.recv_many(&mut questions, KEYS_MAX as usize), if begin => {
                if asked == 0 {
                    break;
                }
                overdue = false;
                reads.push(answer(std::mem::take(&mut questions), &read));
            }
            () = sleep(SLOW), if wait => overdue = true,
        }
    }
    while reads.next().await.is_some() {}
}

async fn answer<R: Future<Output = Found>>(mut questions: Vec<Question>, read: &impl Fn(HashSet<CommitKey>) -> R) {
    questions.retain(|question| !question.answer.is_closed());
    if questions.is_empty() {
        return;
    }
    let found = read(questions.iter().map(|question| question.key).collect()).await;
    for Question { key, answer } in questions {
        // Who asked may have gone.
        drop(answer.send(found.as_ref().map(|found| found.get(&key).copied()).map_err(Clone::clone)));
    }
}

/// The manual promises linearizability to a read of one document by a unique key. With several it holds for each of
/// them, since mongod does the same for any read: it reads what it has, not what a majority has, and answers only when a
/// no-op that it wrote afterwards is with a majority. So it was the primary after the read: nobody else had acknowledged
/// a write that the read lacks, and what was read is with a majority, too. `_id` never changes, so no document can slip
/// past the scan of its index.
async fn read(server: &Server, commits: &Collection<RawDocumentBuf>, keys: HashSet<CommitKey>) -> Found {
    let keys: Vec<String> = keys.iter().map(CommitKey::to_string).collect();
    let find = commits
        .find(doc! { "_id": { "$in": keys } })
        .projection(doc! { "_id": 1, "id": 1 })
        .read_concern(ReadConcern::linearizable())
        // Without a majority the server would wait for ever.
        .max_time(server.answer_within())
        .batch_size(KEYS_MAX);
    let found = async {
        let mut cursor = find.await?;
        let mut found = Vec::new();
        while cursor.advance().await? {
            found.push(commits::name(cursor.current()));
        }
        Ok(found)
    };
    server.answer(found).await.map_err(Failed::into_error)?.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use actors::order::{OrderId, Version};
    use futures_util::future::join_all;
    use tokio::time::Instant;

    use super::*;

    const ANSWER_WITHIN: Duration = Duration::from_secs(1);

    fn key() -> CommitKey {
        CommitKey { order: OrderId::generate(), first: Version::FIRST }
    }

    /// What is stored, and which keys were read.
    #[derive(Clone, Default)]
    struct Fake {
        stored: Arc<Mutex<HashMap<CommitKey, CommitId>>>,
        reads: Arc<Mutex<Vec<HashSet<CommitKey>>>>,
    }

    impl Fake {
        fn reads(&self) -> Vec<HashSet<CommitKey>> {
            self.reads.lock().expect("no panic").clone()
        }

        /// Reads that take so long, each as of its beginning.
        fn lookup(&self, takes: impl Fn(usize) -> Duration + Send + Sync + 'static) -> Lookup {
            let fake = self.clone();
            Lookup::with(ANSWER_WITHIN, move |keys| {
                let found = fake.stored.lock().expect("no panic").clone();
                let mut reads = fake.reads.lock().expect("no panic");
                reads.push(keys);
                let took = sleep(takes(reads.len()));
                async move {
                    took.await;
                    Ok(found)
                }
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_at_the_same_time_shares_a_read_and_gets_an_answer_of_his_own() {
        let fake = Fake::default();
        let keys: Vec<CommitKey> = (0..900).map(|_| key()).collect();
        let stored: HashMap<_, _> = keys.iter().step_by(3).map(|key| (*key, CommitId::generate())).collect();
        *fake.stored.lock().expect("no panic") = stored.clone();
        let lookup = fake.lookup(|_| Duration::from_millis(10));
        for round in 1..=3 {
            let answers = join_all(keys.iter().map(|key| lookup.commit_at(*key))).await;
            for (key, answer) in keys.iter().zip(answers) {
                assert_eq!(answer.expect("an answer"), stored.get(key).copied());
            }
            assert!(fake.reads().len() <= 2 * round, "{} reads", fake.reads().len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_is_older_than_its_question() {
        let fake = Fake::default();
        let lookup = fake.lookup(|_| Duration::from_millis(50));
        let (key, id) = (key(), CommitId::generate());
        let early = lookup.commit_at(key);
        tokio::pin!(early);
        assert!(timeout(Duration::from_millis(10), &mut early).await.is_err(), "it is being read");
        fake.stored.lock().expect("no panic").insert(key, id);
        assert_eq!(lookup.commit_at(key).await.expect("an answer"), Some(id));
        assert_eq!(early.await.expect("an answer"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_behind_a_read_that_hangs_and_who_hangs_is_told_in_time() {
        let fake = Fake::default();
        let lookup = fake.lookup(|read| if read == 1 { ANSWER_WITHIN * 60 } else { Duration::from_millis(10) });
        let begun = Instant::now();
        let (hung, answered) = tokio::join!(lookup.commit_at(key()), async {
            sleep(Duration::from_millis(1)).await;
            (lookup.commit_at(key()).await, begun.elapsed())
        });
        assert!(matches!(hung, Err(StoreError::Away(_))), "{hung:?}");
        assert_eq!(begun.elapsed().as_millis(), ANSWER_WITHIN.as_millis());
        assert!(answered.0.is_ok() && answered.1 < SLOW * 2, "{answered:?}");
        // Once more, while the first one still hangs.
        assert!(lookup.commit_at(key()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn reads_that_hang_are_few_however_many_ask() {
        let fake = Fake::default();
        let lookup = fake.lookup(|_| ANSWER_WITHIN * 60);
        for _ in 0..=READS_MAX {
            let answers = join_all((0..100).map(|_| lookup.commit_at(key()))).await;
            assert!(answers.iter().all(Result::is_err));
        }
        assert_eq!(fake.reads().len(), READS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_is_not_read_for_and_harms_nobody() {
        let fake = Fake::default();
        let lookup = fake.lookup(|_| Duration::from_millis(50));
        let (first, gone, last) = (key(), key(), key());
        let (one, _, three) = tokio::join!(
            lookup.commit_at(first),
            async {
                // Behind the beginning of the first one's read.
                sleep(Duration::from_millis(1)).await;
                timeout(Duration::from_millis(10), lookup.commit_at(gone)).await
            },
            async {
                sleep(Duration::from_millis(1)).await;
                lookup.commit_at(last).await
            }
        );
        assert!(one.is_ok() && three.is_ok());
        assert_eq!(fake.reads(), [HashSet::from([first]), HashSet::from([last])]);
    }
}
