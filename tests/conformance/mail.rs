//! The mailer by SMTP against a mail server: what each of its answers means, and that a mail is given once unless nobody
//! can know.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actors::mailer::{Mail, MailError, Mailer, Sent};
use docket::mail::{Deadlines, OpenError, Reached, SmtpMailer, SmtpUrl};
use servers::{Behaviour, SmtpOptions, SmtpServer, Tls};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const FROM: &str = "docket <orders@shop.example>";
const WITHIN: Deadlines = Deadlines { asked: Duration::from_secs(5), accepted: Duration::from_secs(5) };
const HASTY: Deadlines = Deadlines { asked: Duration::from_millis(500), accepted: Duration::from_millis(500) };

fn mailer(url: &str) -> SmtpMailer {
    SmtpMailer::open(&SmtpUrl::new(url), FROM, 4, WITHIN).expect("a mailer")
}

fn mail(number: u32) -> Mail {
    Mail {
        message_id: format!("01a208b6-8cf1-75a1-b290-22c358a649f8.{number:016}"),
        to: format!("ana{number}@example.com"),
        subject: "Your order, Ána".to_owned(),
        date: "2026-11-23T08:00:00.000Z".parse().expect("a moment"),
        text: "Thank you, Ána.\n.\nA line with a dot was above.\n".to_owned(),
        html: "<p>Thank you, Ána.</p>\n".to_owned(),
        correlation_id: "c-1".to_owned(),
        traceparent: None,
    }
}

#[track_caller]
fn transient(sent: Result<Sent, MailError>) -> String {
    match sent {
        Err(MailError::Transient(why)) => why,
        other => panic!("{other:?} is not: not this time"),
    }
}

#[track_caller]
fn down(sent: Result<Sent, MailError>) -> String {
    match sent {
        Err(MailError::DependencyDown(why)) => why,
        other => panic!("{other:?} is not: no mail can be sent now"),
    }
}

#[track_caller]
fn undeliverable(sent: Result<Sent, MailError>) -> String {
    match sent {
        Err(MailError::Undeliverable(why)) => why,
        other => panic!("{other:?} is not: undeliverable"),
    }
}

#[tokio::test]
async fn a_mail_arrives_as_it_was_written_and_sent_again_as_the_same() {
    let server = SmtpServer::start().await;
    let mailer = mailer(&server.url());
    let sent = mailer.send(&mail(1)).await.expect("taken");
    assert_eq!(sent.message_id, format!("<{}@shop.example>", mail(1).message_id));
    mailer.send(&mail(1)).await.expect("taken");

    let mails = server.mails();
    let [first, second] = mails.as_slice() else { panic!("{mails:?}") };
    assert_eq!(
        (first.from.as_str(), first.recipients.as_slice()),
        ("orders@shop.example", &["ana1@example.com".to_owned()][..])
    );
    assert_eq!(first.message_id(), sent.message_id);
    assert_eq!(first.header("Date").as_deref(), Some("Mon, 23 Nov 2026 08:00:00 +0000"));
    assert!(first.body().contains("A line with a dot was above"), "{}", first.body());
    assert_eq!(first.text, second.text);
}

#[tokio::test]
async fn a_server_is_asked_whether_it_takes_the_sender_and_given_no_mail() {
    let server = SmtpServer::start().await;
    let mailer = mailer(&server.url());
    assert_eq!(mailer.reach().await.expect("reached"), Reached { encrypted: false });
    assert_eq!((server.attempts(), server.mails().len()), (1, 0));
    server.behave(&Behaviour::Closing);
    assert!(mailer.reach().await.expect_err("closing").to_string().contains("421"));
}

#[tokio::test]
async fn the_next_mail_goes_over_the_same_connection_also_after_a_refused_one() {
    let server = SmtpServer::start().await;
    let door = Door::before(server.address()).await;
    let mailer = mailer(&server.url_at(door.address));
    server.behave(&Behaviour::RefuseRecipients("ana2@".to_owned(), 550));
    for number in [1, 2, 3] {
        assert_eq!(mailer.send(&mail(number)).await.is_ok(), number != 2);
    }
    assert_eq!((server.mails().len(), door.opened()), (2, 1));
    let many: Vec<Mail> = (10..40).map(mail).collect();
    for sent in futures_util::future::join_all(many.iter().map(|mail| mailer.send(mail))).await {
        sent.expect("taken");
    }
    assert!((1..=4).contains(&door.opened()), "{} connections, and 4 are allowed", door.opened());
}

/// Counts who comes in.
struct Door {
    address: SocketAddr,
    opened: Arc<AtomicUsize>,
}

impl Door {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, opened) = (listener.local_addr().expect("an address"), Arc::new(AtomicUsize::new(0)));
        let count = opened.clone();
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.expect("a server");
                    tokio::io::copy_bidirectional(&mut caller, &mut server).await.map(drop)
                });
            }
        });
        Self { address, opened }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn many_mails_at_once_arrive_once_each() {
    let server = SmtpServer::start().await;
    let mailer = mailer(&server.url());
    let all: Vec<Mail> = (0..40).map(mail).collect();
    for sent in futures_util::future::join_all(all.iter().map(|mail| mailer.send(mail))).await {
        sent.expect("taken");
    }
    let mut ids: Vec<String> = server.mails().iter().map(servers::Mail::message_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), server.mails().len()), (40, 40));
}

#[tokio::test]
async fn a_refused_reader_is_an_outcome_and_the_next_mail_goes() {
    let server = SmtpServer::start().await;
    let mailer = mailer(&server.url());
    server.behave(&Behaviour::RefuseRecipients("ana1@".to_owned(), 550));
    let why = undeliverable(mailer.send(&mail(1)).await);
    assert!(why.contains("550") && why.contains("RCPT TO") && !why.contains("ana1"), "{why}");
    mailer.send(&mail(2)).await.expect("taken");
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].recipients, ["ana2@example.com"]);
}

#[tokio::test]
async fn a_refused_mail_is_an_outcome() {
    let server = SmtpServer::start().await;
    let mailer = mailer(&server.url());
    server.behave(&Behaviour::RefuseMessages(554));
    assert!(undeliverable(mailer.send(&mail(1)).await).contains("554"));
    server.behave(&Behaviour::Accept);
    mailer.send(&mail(2)).await.expect("taken");
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn not_now_is_not_this_time_and_once_in_the_end() {
    let server = SmtpServer::start().await;
    let mailer = mailer(&server.url());
    for behaviour in [Behaviour::RefuseRecipients("ana".to_owned(), 451), Behaviour::RefuseMessages(452)] {
        server.behave(&behaviour);
        let why = transient(mailer.send(&mail(1)).await);
        assert!(why.contains("45") && !why.contains("ana1"), "{why}");
    }
    server.behave(&Behaviour::Accept);
    mailer.send(&mail(1)).await.expect("taken");
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn a_server_that_closes_takes_no_mail_now() {
    let server = SmtpServer::start().await;
    let mailer = mailer(&server.url());
    mailer.send(&mail(1)).await.expect("taken");
    server.behave(&Behaviour::Closing);
    assert!(down(mailer.send(&mail(2)).await).contains("421"));
    server.behave(&Behaviour::Accept);
    mailer.send(&mail(2)).await.expect("taken");
    assert_eq!(server.mails().len(), 2);
}

#[tokio::test]
async fn a_slow_server_is_given_up_and_takes_the_mail_once() {
    let server = SmtpServer::start().await;
    let hasty = SmtpMailer::open(&SmtpUrl::new(&server.url()), FROM, 4, HASTY).expect("a mailer");
    server.behave(&Behaviour::Slow(Duration::from_secs(5)));
    assert!(transient(hasty.send(&mail(1)).await).contains("same Message-ID"));
    server.behave(&Behaviour::Slow(Duration::from_millis(50)));
    mailer(&server.url()).send(&mail(1)).await.expect("taken");
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn a_server_that_looks_into_mails_has_time_for_that_and_is_given_each_once() {
    let server = SmtpServer::start().await;
    let patient = Deadlines { accepted: Duration::from_secs(30), ..HASTY };
    let mailer = SmtpMailer::open(&SmtpUrl::new(&server.url()), FROM, 1, patient).expect("a mailer");
    server.behave(&Behaviour::Slow(HASTY.asked * 2));
    // The second waits for the only connection longer than for any answer.
    let (one, two) = (mail(1), mail(2));
    let (one, two) = tokio::join!(mailer.send(&one), mailer.send(&two));
    one.expect("taken");
    two.expect("taken");
    assert_eq!((server.mails().len(), server.attempts()), (2, 2));
}

#[tokio::test]
async fn a_server_that_is_slow_with_each_answer_is_given_up_as_one_that_has_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("smtp://{}", listener.local_addr().expect("an address"));
    let serving = tokio::spawn(async move {
        let (connection, _) = listener.accept().await.expect("a connection");
        let (reading, mut writing) = connection.into_split();
        let mut lines = BufReader::new(reading).lines();
        let mut answer = "220 here\r\n";
        loop {
            tokio::time::sleep(HASTY.asked / 3).await;
            if writing.write_all(answer.as_bytes()).await.is_err() {
                break;
            }
            let Ok(Some(_)) = lines.next_line().await else { break };
            answer = "250 ok\r\n";
        }
    });
    let mailer = SmtpMailer::open(&SmtpUrl::new(&url), FROM, 1, HASTY).expect("a mailer");
    assert!(down(mailer.send(&mail(1)).await).contains("500 ms"));
    serving.await.expect("it saw that nobody is there");
}

#[tokio::test]
async fn when_the_connection_breaks_after_the_mail_a_second_one_has_the_same_id() {
    let server = SmtpServer::start().await;
    let mailer = mailer(&server.url());
    server.behave(&Behaviour::DropAfterData);
    assert!(transient(mailer.send(&mail(1)).await).contains("same Message-ID"));
    assert_eq!(server.attempts(), 1, "nobody tries again by himself where nobody can know");
    server.behave(&Behaviour::Accept);
    let sent = mailer.send(&mail(1)).await.expect("taken");
    let mails = server.mails();
    assert_eq!(mails.len(), 2);
    assert_eq!(mails[0].text, mails[1].text);
    assert_eq!(mails[0].message_id(), sent.message_id);
}

#[tokio::test]
async fn connections_that_the_server_closed_meanwhile_cost_no_attempt() {
    let mut server = SmtpServer::start().await;
    let mailer = mailer(&server.url());
    for sent in futures_util::future::join_all([mail(1), mail(2), mail(3)].iter().map(|mail| mailer.send(mail))).await {
        sent.expect("taken");
    }
    server.restart().await;
    mailer.send(&mail(4)).await.expect("taken");
    assert_eq!(server.mails().len(), 4);
}

#[tokio::test]
async fn a_server_that_is_away_takes_no_mail_now() {
    let mut server = SmtpServer::start().await;
    let mailer = mailer(&server.url());
    mailer.send(&mail(1)).await.expect("taken");
    server.kill();
    assert!(down(mailer.send(&mail(2)).await).contains("connecting"));
    server.restart().await;
    mailer.send(&mail(2)).await.expect("taken");
    assert_eq!(server.mails().len(), 2);
}

#[tokio::test]
async fn a_server_that_is_frozen_takes_no_mail_now_and_none_of_those_who_wait_pays_for_it() {
    let server = SmtpServer::start().await;
    let mailer = SmtpMailer::open(&SmtpUrl::new(&server.url()), FROM, 1, HASTY).expect("a mailer");
    server.freeze();
    let mails: Vec<Mail> = (0..3).map(mail).collect();
    for sent in futures_util::future::join_all(mails.iter().map(|mail| mailer.send(mail))).await {
        down(sent);
    }
    server.thaw();
    assert_eq!(server.mails().len(), 0);
}

#[tokio::test]
async fn half_a_mail_is_none_and_leaves_no_connection_behind() {
    let server = SmtpServer::start().await;
    let mailer = mailer(&server.url());
    server.behave(&Behaviour::Slow(Duration::from_secs(60)));
    let mail = mail(1);
    {
        let given_up = mailer.send(&mail);
        // Whoever calls for it goes away in the midst of it.
        tokio::select! {
            sent = given_up => panic!("{sent:?}"),
            () = until(async || server.attempts() == 1) => {}
        }
    }
    // The server may have the first one whole by now, and finds that nobody waits any more.
    server.behave(&Behaviour::Slow(Duration::from_millis(200)));
    mailer.send(&mail).await.expect("taken");
    assert_eq!(server.mails().len(), 1);
}

async fn until(is: impl AsyncFn() -> bool) {
    for _ in 0..500 {
        if is().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came to be");
}

fn wants_a_login(tls: Tls) -> SmtpOptions {
    SmtpOptions { login: Some(("docket".to_owned(), "s3cret".to_owned())), tls }
}

#[tokio::test]
async fn it_logs_in_and_a_wrong_password_stops_every_mail_without_showing_it() {
    let server = SmtpServer::start_with(wants_a_login(Tls::None)).await;
    let url = format!("{}?tls=none", server.url());
    mailer(&url).send(&mail(1)).await.expect("taken");
    assert_eq!(server.mails()[0].user.as_deref(), Some("docket"));

    let wrong = mailer(&url.replace("s3cret", "wr0ng"));
    for why in [down(wrong.send(&mail(2)).await), wrong.reach().await.expect_err("refused").to_string()] {
        assert!(why.contains("535") && why.contains("logging in") && !why.contains("wr0ng"), "{why}");
    }
    assert!(!format!("{wrong:?}").contains("wr0ng"));
    // Not logging in at all is as wrong.
    let nobody = mailer(&url.replace("docket:s3cret@", ""));
    assert!(down(nobody.send(&mail(3)).await).contains("530"));
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn a_password_is_not_sent_unencrypted_unless_that_is_asked_for() {
    let server = SmtpServer::start_with(wants_a_login(Tls::None)).await;
    assert!(down(mailer(&server.url()).send(&mail(1)).await).contains("tls=none"));
    let required = mailer(&format!("{}?tls=required", server.url()));
    assert!(down(required.send(&mail(1)).await).contains("STARTTLS"));
    assert_eq!(server.attempts(), 0);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_stops_every_mail() {
    for tls in [Tls::StartTls, Tls::Implicit] {
        let server = SmtpServer::start_with(SmtpOptions { login: None, tls }).await;
        let why = down(mailer(&server.url()).send(&mail(1)).await);
        assert!(why.to_ascii_lowercase().contains("certificate"), "{why}");
        assert_eq!(server.attempts(), 0);
    }
}

#[tokio::test]
async fn what_is_no_address_is_said_at_once() {
    let url = SmtpUrl::new("smtp://localhost");
    assert!(matches!(SmtpMailer::open(&url, "nobody", 1, WITHIN), Err(OpenError::From { .. })));
    let none = SmtpUrl::new("localhost");
    assert!(matches!(SmtpMailer::open(&none, FROM, 1, WITHIN), Err(OpenError::Url(_))));
    // And of a reader before anybody is asked.
    let away = mailer("smtp://127.0.0.1:1");
    undeliverable(away.send(&Mail { to: "nobody\r\nRCPT TO:<all@example.com>".to_owned(), ..mail(1) }).await);
}
