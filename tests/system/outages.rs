//! MongoDB is killed, stands still or is cut off, while many place orders and move them on; and what it was sent lands
//! when nobody waits for it any more. Whatever a caller was told is so: a 2xx is there, a 503 came soon and is never done,
//! a 504 was done once or not at all and ends in one effect when it is repeated with its key. Nobody helps.

use std::time::Duration;

use futures_util::future::join_all;
use servers::{MongoServer, Proxy, Request};

use crate::harness::callers::{Callers, Said, Step, Told};
use crate::harness::{Docket, Folder, eventually, rounds};

const CALLERS: usize = 24;
/// How long a primary is looked for.
const SELECTION: Duration = Duration::from_millis(500);
/// No answer of any kind takes longer, with the deadlines of [`impatient`]: a snapshot and an order are read (1.5 s each),
/// and a commit waits and is written (1 s each).
const LONGEST: Duration = Duration::from_secs(5);
/// A machine with more to do than it can is so much slower.
const SLOW: u32 = 2;

/// With deadlines that a test can wait for.
fn impatient(folder: Folder) -> Folder {
    folder
        .set("DOCKET__MONGODB__SELECTION_TIMEOUT_MS", &SELECTION.as_millis().to_string())
        .set("DOCKET__MONGODB__ANSWER_TIMEOUT_MS", "1500")
        .set("DOCKET__JOURNAL__WRITE_MAX_MS", "1000")
        .set("DOCKET__JOURNAL__WAIT_MAX_MS", "1000")
        .set("DOCKET__JOURNAL__RETRY_MAX_MS", "200")
        .set("DOCKET__SUBSCRIBER__LEASE_MS", "3000")
}

fn writes_commits(request: &Request) -> bool {
    request.command == "insert" && request.collection == "commits"
}

/// What a docket's tree says of unknown outcomes: how many there are, and how many there were that are known now.
async fn outcomes(docket: &Docket) -> (u64, u64) {
    let tree = docket.ops("/api/tree").await;
    let children = tree["children"].as_array().expect("children");
    let journal = children.iter().find(|child| child["name"] == "journal").expect("a journal");
    let figure = |name: &str| journal["figures"][name].as_u64().unwrap_or_default();
    (figure("outcomes_unknown"), figure("outcomes_settled"))
}

/// Waits until no outcome is unknown to any of them; how many were.
async fn settled(dockets: &[Docket]) -> u64 {
    let mut settled = 0;
    eventually("no outcome is unknown", async || {
        settled = 0;
        let outcomes = join_all(dockets.iter().map(outcomes)).await;
        settled = outcomes.iter().map(|(_, settled)| settled).sum();
        outcomes.iter().all(|(unknown, _)| *unknown == 0)
    })
    .await;
    settled
}

/// Something has begun to be wrong: that is noticed, and callers are refused.
async fn is_noticed(callers: &Callers<'_>, dockets: &[Docket]) {
    for docket in dockets {
        eventually("it says that it is not ready", async || !docket.is_ready().await).await;
    }
    callers.are_refused(10 * CALLERS).await;
}

/// It is over, and all goes on.
async fn is_overcome(callers: &Callers<'_>, dockets: &[Docket]) {
    for docket in dockets {
        eventually("it is ready again", async || docket.is_ready().await).await;
    }
    callers.go_on(100).await;
}

/// Refusals come soon: as a rule nobody waits for anything, for it is known that the store is away.
fn assert_quick(told: &Told) {
    let mut took = told.refused.clone();
    took.sort();
    let (longest, usual) = (took[took.len() - 1], took[took.len() / 2]);
    assert!(
        usual < SELECTION / SLOW && longest < LONGEST * SLOW,
        "refused in {usual:?} as a rule, {longest:?} at most"
    );
}

/// All that callers were told holds, and what they were told to be unknown was counted.
async fn assert_true(told: Told, folder: &Folder, dockets: Vec<Docket>) {
    assert_quick(&told);
    assert!(told.given_up > 0, "nothing was left undone");
    let settled = settled(&dockets).await;
    assert!(told.unknown == 0 || settled > 0, "{} were told so, and {settled} counted", told.unknown);
    told.assert_true(folder, dockets).await;
}

#[tokio::test]
async fn mongodb_killed_or_standing_still_under_load_loses_nothing_and_nothing_happens_twice() {
    let mut server = MongoServer::start().await;
    let folder = impatient(Folder::on(&server));
    let dockets = vec![folder.start().await, folder.start().await];
    let callers = Callers::new(&dockets);
    let trouble = async {
        callers.go_on(100).await;
        for round in 0..rounds(3, 60) {
            let stands_still = round % 3 == 1;
            if stands_still {
                server.freeze()
            } else {
                server.kill()
            }
            is_noticed(&callers, &dockets).await;
            if stands_still {
                server.thaw()
            } else {
                server.restart().await
            }
            is_overcome(&callers, &dockets).await;
        }
        callers.stop();
    };
    tokio::join!(callers.write(CALLERS), trouble);
    assert_true(callers.into_told(), &folder, dockets).await;
}

#[tokio::test]
async fn cut_off_from_mongodb_in_any_way_it_recovers_by_itself_and_loses_nothing() {
    let server = MongoServer::start().await;
    let proxy = Proxy::before(server.address());
    let folder = impatient(Folder::on(&server)).through(&proxy);
    let dockets = vec![folder.start().await];
    let callers = Callers::new(&dockets);
    let ways: [&dyn Fn(); 3] =
        [&|| proxy.stall(), &|| proxy.delay(Duration::from_millis(1_200)), &|| proxy.drop_connections()];
    let trouble = async {
        callers.go_on(100).await;
        for _ in 0..rounds(1, 30) {
            for way in ways {
                way();
                is_noticed(&callers, &dockets).await;
                proxy.pass();
                is_overcome(&callers, &dockets).await;
            }
        }
        callers.stop();
    };
    tokio::join!(callers.write(CALLERS), trouble);
    assert_true(callers.into_told(), &folder, dockets).await;
}

#[tokio::test]
async fn messages_cut_in_the_middle_lose_nothing_and_nothing_happens_twice() {
    let server = MongoServer::start().await;
    let proxy = Proxy::before(server.address());
    let folder = impatient(Folder::on(&server)).through(&proxy);
    let dockets = vec![folder.start().await];
    let callers = Callers::new(&dockets);
    let trouble = async {
        for round in 0..rounds(20, 1_000) {
            // The driver tries again, and is cut again.
            let bytes = rand::random_range(1..400);
            match round % 4 {
                0 => proxy.cut(bytes, writes_commits),
                1 => proxy.cut_answer(bytes.min(60), writes_commits),
                2 => proxy.cut(bytes, |_| true),
                _ => proxy.cut_answer(bytes, |_| true),
            }
            callers.go_on(10).await;
        }
        callers.stop();
    };
    tokio::join!(callers.write(CALLERS), trouble);
    settled(&dockets).await;
    callers.into_told().assert_true(&folder, dockets).await;
}

/// Holds back what is written, or what is said of it, until it is known to be late and `meanwhile` has happened; then it
/// lets all of it go.
async fn late(
    callers: &Callers<'_>,
    proxy: &Proxy,
    hold: impl FnOnce(),
    commands: &[Said],
    meanwhile: impl Future<Output = ()>,
) {
    let (held, refused) = (proxy.passed().held, callers.told().refused.len());
    hold();
    let said = join_all(commands.iter().map(|said| callers.say(said, true)));
    let release = async {
        eventually("it was tried again, and others are refused", async || {
            callers.told().refused.len() > refused && proxy.passed().held >= held + 2
        })
        .await;
        meanwhile.await;
        proxy.pass();
    };
    tokio::join!(said, release);
}

/// That step of each of these orders.
fn each(step: Step, orders: &[String], name: &str) -> Vec<Said> {
    orders.iter().map(|order| Said::new(step, order, &format!("{name}-{order}"))).collect()
}

async fn place(callers: &Callers<'_>, round: usize) -> Vec<String> {
    let orders = (0..20).map(|n| Said::new(Step::Create, "", &format!("placed-{round}-{n}")));
    let orders = orders.map(|said| async move { callers.say(&said, false).await.expect("it is repeated").id() });
    join_all(orders).await
}

#[tokio::test]
async fn what_lands_after_its_time_happens_once_and_what_was_refused_never_does() {
    let server = MongoServer::start().await;
    let proxy = Proxy::before(server.address());
    let folder = impatient(Folder::on(&server)).through(&proxy);
    let dockets = vec![folder.start().await];
    let callers = Callers::new(&dockets);
    for round in 0..rounds(2, 40) {
        let orders = place(&callers, round).await;
        let hold: &dyn Fn() = match round % 2 {
            0 => &|| proxy.hold_requests(writes_commits),
            _ => &|| proxy.hold_answers(writes_commits),
        };
        let commands = [each(Step::Pay, &orders, "late"), each(Step::Create, &orders, "late")].concat();
        late(&callers, &proxy, hold, &commands, async {}).await;
    }
    let settled = settled(&dockets).await;
    let tree = folder.command(&["tree", "--url", &dockets[0].ops]).output().expect("the built docket");
    let tree = String::from_utf8(tree.stdout).expect("UTF-8");
    assert!(tree.contains(&format!("outcomes settled: {settled}")) && !tree.contains("outcomes unknown"), "{tree}");
    let told = callers.into_told();
    let unknown = told.unknown as u64;
    told.assert_true(&folder, dockets).await;
    assert!(unknown > 0 && settled >= unknown, "{unknown} were told so, {settled} counted");
}

#[tokio::test]
async fn what_lands_late_where_another_docket_was_asked_meanwhile_changes_nothing() {
    let server = MongoServer::start().await;
    let proxy = Proxy::before(server.address());
    let folder = impatient(Folder::on(&server));
    let direct = folder.start().await;
    let folder = folder.through(&proxy);
    let dockets = vec![folder.start().await, direct];
    let (through, beside) = (Callers::new(&dockets[..1]), Callers::new(&dockets[1..]));
    for round in 0..rounds(2, 40) {
        let orders = place(&through, round).await;
        let commands = each(Step::AddItem, &orders, "late");
        let others = each(Step::AddItem, &orders, "meanwhile");
        let meanwhile = async {
            join_all(others.iter().map(|said| beside.say(said, false))).await;
        };
        late(&through, &proxy, || proxy.hold_requests(writes_commits), &commands, meanwhile).await;
    }
    settled(&dockets).await;
    let (mut told, beside) = (through.into_told(), beside.into_told());
    assert!(told.unknown > 0, "nothing was late");
    told.acknowledged.extend(beside.acknowledged);
    told.assert_true(&folder, dockets).await;
}
