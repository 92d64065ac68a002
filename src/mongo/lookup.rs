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
