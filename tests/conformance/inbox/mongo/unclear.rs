//! Answers that do not come, and requests that arrive late.

use std::time::Instant;

use actors::inbox::{Renewed, Which};
use servers::{Proxy, Request};

use super::*;

/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A transaction that is left open on the server ends after a minute: nobody is to wait for that.
const SOON: Duration = Duration::from_secs(20);

/// A process behind a proxy, in a term.
struct Behind {
    database: Database,
    proxy: Proxy,
    inbox: MongoInbox,
    begun: actors::inbox::Begun,
}

impl Behind {
    async fn begin(lease: Duration) -> Self {
        let database = Database::new();
        let proxy = Proxy::before(database.address());
        let impatient = Settings { answer_within: ANSWER_WITHIN, ..settings(&proxy.uri()) };
        let inbox = open(&impatient, database.0.name(), "behind", lease).await;
        let begun = inbox.begin().await.expect("begun");
        Self { database, proxy, inbox, begun }
    }

    /// A transaction for an order that is new.
    fn transaction(&self) -> (OrderId, Arc<Transaction>) {
        let order = OrderId::generate();
        (order, Arc::new(applies(&self.begun, &[Row::new(order)])))
    }

    async fn is_written_once(&self, order: OrderId, transaction: &Transaction) {
        let rows = self.inbox.rows(self.begun.present.generation, vec![order]).await.expect("rows");
        assert_eq!(rows, [transaction.rows[0].row.clone()]);
        let effects = self.inbox.effects(vec![order], Which::All, 10).await.expect("effects");
        assert_eq!(effects.len(), 1);
    }
}

fn is_commit(request: &Request) -> bool {
    request.command == "commitTransaction"
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_known_by_its_rows() {
    let behind = Behind::begin(LONG).await;
    let (order, transaction) = behind.transaction();
    behind.proxy.hold_answers(is_commit);
    let lost = behind.inbox.commit(transaction.clone()).await;
    assert!(matches!(lost, Err(InboxError::Unknown(_))), "{lost:?}");
    behind.proxy.pass();
    assert_eq!(settle(&behind.inbox, &transaction).await, Committed::Fenced(vec![order]));
    behind.is_written_once(order, &transaction).await;
}

/// The first commit and the second attempt arrive at about the same time: whichever is first, it is written once.
/// The server has forgotten a transaction whose commit it gets: nobody knows whether an earlier such commit was carried
/// out. Nor does what goes wrong afterwards tell.
#[tokio::test]
async fn what_follows_a_lost_commit_does_not_make_it_certain_that_nothing_was_written() {
    let behind = Behind::begin(LONG).await;
    let (order, transaction) = behind.transaction();
    behind.proxy.hold_requests(is_commit);
    let forgets = async {
        while behind.proxy.passed().held == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let subscriber = behind.database.subscriber().await;
        let document = subscriber.find_one(doc! {}).await.expect("an answer").expect("a subscriber");
        let session = document.get_document("session").expect("a session").clone();
        let server = Server::new(&settings(behind.database.0.uri())).await.expect("a server");
        let kill = doc! { "killSessions": [session] };
        server.database("admin").run_command(kill).await.expect("killed");
        behind.proxy.pass();
        behind.proxy.cut(1, |request| request.command == "update" && request.collection == "subscriber");
    };
    let (unclear, ()) = tokio::join!(behind.inbox.commit(transaction.clone()), forgets);
    assert!(matches!(unclear, Err(InboxError::Unknown(_))), "{unclear:?}");
    assert_eq!(settle(&behind.inbox, &transaction).await, Committed::Written);
    behind.is_written_once(order, &transaction).await;
}

#[tokio::test]
async fn a_commit_that_lands_late_is_there_once() {
    let behind = Behind::begin(LONG).await;
    for _ in 0..3 {
        let (order, transaction) = behind.transaction();
        behind.proxy.hold_requests(is_commit);
        let lost = behind.inbox.commit(transaction.clone()).await;
        assert!(matches!(lost, Err(InboxError::Unknown(_))), "{lost:?}");
        let lands = async {
            tokio::task::yield_now().await;
            behind.proxy.pass();
        };
        let ((), settled) = tokio::join!(lands, settle(&behind.inbox, &transaction));
        assert!(settled == Committed::Written || settled == Committed::Fenced(vec![order]), "{settled:?}");
        behind.is_written_once(order, &transaction).await;
        let (order, next) = behind.transaction();
        assert_eq!(settle(&behind.inbox, &next).await, Committed::Written, "nothing is left behind");
        behind.is_written_once(order, &next).await;
    }
}

/// Nothing is written then, and what the server was left with is in nobody's way.
#[tokio::test]
async fn a_statement_without_an_answer_leaves_nothing_behind() {
    let behind = Behind::begin(LONG).await;
    let statements = [("update", "subscriber"), ("insert", "inbox"), ("update", "documents"), ("update", "effects")];
    for (command, collection) in statements {
        for arrives in [true, false] {
            let (order, transaction) = behind.transaction();
            let is_it = move |request: &Request| request.command == command && request.collection == collection;
            if arrives {
                behind.proxy.hold_answers(is_it)
            } else {
                behind.proxy.hold_requests(is_it)
            }
            let lost = behind.inbox.commit(transaction.clone()).await;
            assert!(matches!(lost, Err(InboxError::Away(_))), "{command} {collection}: {lost:?}");
            behind.proxy.pass();
            let again_at = Instant::now();
            if arrives {
                let renewed = behind.inbox.renew(behind.begun.term).await;
                assert!(matches!(renewed, Ok(Renewed::Held { .. })), "{command} {collection}: {renewed:?}");
            }
            assert_eq!(settle(&behind.inbox, &transaction).await, Committed::Written, "{command} {collection}");
            assert!(again_at.elapsed() < SOON, "{command} {collection}: after {:?}", again_at.elapsed());
            behind.is_written_once(order, &transaction).await;
        }
    }
}

/// A process is cut off with its transaction open, and another takes over: soon, and what the first one sent arrives in
/// vain.
#[tokio::test]
async fn a_commit_that_lands_after_a_takeover_writes_nothing() {
    let behind = Behind::begin(SHORT).await;
    let (order, transaction) = behind.transaction();
    behind.proxy.hold_requests(is_commit);
    let lost = behind.inbox.commit(transaction.clone()).await;
    assert!(matches!(lost, Err(InboxError::Unknown(_))), "{lost:?}");
    let impatient = Settings { answer_within: ANSWER_WITHIN, ..settings(behind.database.0.uri()) };
    let another = open(&impatient, behind.database.0.name(), "another", SHORT).await;
    let asked_at = Instant::now();
    let later = loop {
        match another.begin().await {
            Ok(begun) => break begun,
            Err(InboxError::Held { ends_in, .. }) => tokio::time::sleep(ends_in.min(SHORT / 10)).await,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(asked_at.elapsed() < SOON, "{:?}", asked_at.elapsed());
    let theirs = Arc::new(applies(&later, &[Row::new(order)]));
    assert_eq!(another.commit(theirs.clone()).await.expect("a definite answer"), Committed::Written);
    behind.proxy.pass();
    assert_eq!(settle(&behind.inbox, &transaction).await, Committed::Superseded);
    behind.is_written_once(order, &theirs).await;
}

/// Somebody else's transaction is open on the rows: this one says so in good time, and has written nothing.
#[tokio::test]
async fn what_is_held_by_an_open_transaction_is_given_up_in_good_time() {
    let behind = Behind::begin(LONG).await;
    let (order, transaction) = behind.transaction();
    behind.proxy.hold_requests(is_commit);
    let lost = behind.inbox.commit(transaction.clone()).await;
    assert!(matches!(lost, Err(InboxError::Unknown(_))), "{lost:?}");
    // The same process, by another way.
    let direct = behind.database.held_by("behind", LONG).await;
    let refused = direct.commit(transaction.clone()).await;
    assert!(matches!(refused, Err(InboxError::Away(_))), "{refused:?}");
    behind.proxy.pass();
    let settled = settle(&direct, &transaction).await;
    assert!(settled == Committed::Written || settled == Committed::Fenced(vec![order]), "{settled:?}");
    behind.is_written_once(order, &transaction).await;
}

/// An index over many rows takes longer to be made than an answer may take.
#[tokio::test]
async fn indexes_are_waited_for_while_the_server_answers_otherwise() {
    let database = Database::new();
    let proxy = Proxy::before(database.address());
    let impatient = Settings { answer_within: ANSWER_WITHIN, ..settings(&proxy.uri()) };
    proxy.hold_answers(|request| request.command == "createIndexes");
    let made = async {
        while proxy.passed().held < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.pass();
    };
    let (inbox, ()) = tokio::join!(open(&impatient, database.0.name(), "one", LONG), made);
    assert!(!inbox.begin().await.expect("begun").unclean);
}

/// The rows take longer to be counted than a lease lasts. The lease is held on to meanwhile, and is no longer for that.
#[tokio::test]
async fn a_lease_is_no_longer_because_beginning_took_long() {
    let behind = Behind::begin(SHORT).await;
    behind.proxy.hold_answers(|request| request.command == "aggregate" && request.collection == "inbox");
    let began_at = Instant::now();
    let before = behind.database.until().await;
    let counted = async {
        // It begins, and renews that.
        while behind.database.until().await < before + SHORT / 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        behind.proxy.pass();
    };
    let (begun, ()) = tokio::join!(behind.inbox.begin(), counted);
    let begun = begun.expect("begun");
    assert_eq!(begun.lease, Some(SHORT));
    assert!(!begun.held_after.is_zero() && begun.held_after <= began_at.elapsed(), "{:?}", begun.held_after);
}

/// The lease is over while its holder is in a transaction that takes long: who wants it lets it finish, and it is held.
#[tokio::test]
async fn a_holder_in_a_transaction_is_let_finish_it() {
    let lease = Duration::from_secs(1);
    let database = Database::new();
    let proxy = Proxy::before(database.address());
    let patient = |uri: &str| Settings { answer_within: Duration::from_secs(10), ..settings(uri) };
    let inbox = open(&patient(&proxy.uri()), database.0.name(), "one", lease).await;
    let another = open(&patient(database.0.uri()), database.0.name(), "another", lease).await;
    let begun = inbox.begin().await.expect("begun");
    let transaction = Arc::new(applies(&begun, &[Row::new(OrderId::generate())]));
    proxy.hold_requests(is_commit);
    let others = async {
        let since = Instant::now();
        while since.elapsed() < lease * 3 {
            let held = another.begin().await;
            assert!(matches!(held, Err(InboxError::Held { .. })), "after {:?}: {held:?}", since.elapsed());
            tokio::time::sleep(lease / 10).await;
        }
        proxy.pass();
    };
    let (committed, ()) = tokio::join!(inbox.commit(transaction), others);
    assert_eq!(committed.expect("a definite answer"), Committed::Written);
    let renewed = inbox.renew(begun.term).await;
    assert!(matches!(renewed, Ok(Renewed::Held { .. })), "{renewed:?}");
}
