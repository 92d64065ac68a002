//! That the mail server behaves as it is told.

use std::time::{Duration, Instant};

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls as ClientTls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::time::timeout;

use super::MOMENT;
use crate::{Behaviour, SmtpOptions, SmtpServer, Tls};

type Client = AsyncSmtpTransport<Tokio1Executor>;

fn client(server: &SmtpServer) -> Client {
    Client::builder_dangerous("localhost").port(server.address().port()).build()
}

fn mail(id: &str) -> Message {
    let mail = Message::builder().from("a@example.com".parse().expect("an address"));
    let mail = mail.to("b@example.com".parse().expect("an address")).cc("c@example.org".parse().expect("an address"));
    let mail = mail.message_id(Some(format!("<{id}@example.com>"))).subject("Größe");
    mail.body("one\r\n.two".to_owned()).expect("a mail")
}

/// The code that it answered with instead of taking the mail.
async fn refused(client: &Client) -> u16 {
    let error = client.send(mail("refused")).await.expect_err("it took it");
    error.status().unwrap_or_else(|| panic!("{error}")).into()
}

#[tokio::test]
async fn a_mail_is_kept_as_it_was_given() {
    let server = SmtpServer::start().await;
    client(&server).send(mail("1")).await.expect("it takes it");
    let mails = server.mails();
    let [kept] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!(kept.from, "a@example.com");
    assert_eq!(kept.recipients, ["b@example.com", "c@example.org"]);
    assert_eq!(kept.message_id(), "<1@example.com>");
    assert!(kept.header("subject").is_some() && kept.header("X-None").is_none());
    assert_eq!(kept.body(), "one\n.two\n");
    assert_eq!((kept.user.as_deref(), kept.encrypted, server.attempts()), (None, false, 1));
}

#[tokio::test]
async fn it_refuses_as_it_is_told_and_keeps_nothing_of_that() {
    let server = SmtpServer::start().await;
    let client = client(&server);
    for (behaviour, code) in [
        (Behaviour::RefuseRecipients("c@".to_owned(), 550), 550),
        (Behaviour::RefuseMessages(451), 451),
        (Behaviour::RefuseMessages(554), 554),
        (Behaviour::Closing, 421),
    ] {
        server.behave(&behaviour);
        assert_eq!(refused(&client).await, code, "{behaviour:?}");
    }
    assert_eq!((server.mails(), server.attempts()), (Vec::new(), 4));
    server.behave(&Behaviour::Accept);
    client.send(mail("1")).await.expect("it takes it");
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn a_slow_one_keeps_only_what_was_waited_for() {
    let server = SmtpServer::start().await;
    server.behave(&Behaviour::Slow(MOMENT));
    let asked = Instant::now();
    client(&server).send(mail("1")).await.expect("it takes it");
    assert!(asked.elapsed() >= MOMENT, "{:?}", asked.elapsed());

    server.behave(&Behaviour::Slow(Duration::from_secs(3600)));
    assert!(timeout(MOMENT, client(&server).send(mail("2"))).await.is_err(), "it was answered");
    server.behave(&Behaviour::Accept);
    client(&server).send(mail("3")).await.expect("it takes it");
    let kept: Vec<String> = server.mails().iter().map(crate::Mail::message_id).collect();
    assert_eq!(kept, ["<1@example.com>", "<3@example.com>"]);
}

#[tokio::test]
async fn what_was_dropped_after_its_data_is_kept_though_its_sender_has_no_answer() {
    let server = SmtpServer::start().await;
    server.behave(&Behaviour::DropAfterData);
    let error = client(&server).send(mail("1")).await.expect_err("no answer");
    assert!(error.status().is_none(), "{error}");
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn a_killed_one_is_again_where_it_was_with_what_it_had() {
    let mut server = SmtpServer::start().await;
    let client = client(&server);
    client.send(mail("1")).await.expect("it takes it");
    server.kill();
    client.send(mail("2")).await.expect_err("nobody is there");
    server.restart().await;
    client.send(mail("3")).await.expect("it takes it");
    assert_eq!(server.mails().len(), 2);
}

#[tokio::test]
async fn one_that_wants_to_know_who_and_encryption_takes_nothing_without() {
    let login = Some(("docket".to_owned(), "s3cret".to_owned()));
    for tls in [Tls::StartTls, Tls::Implicit] {
        let server = SmtpServer::start_with(SmtpOptions { login: login.clone(), tls }).await;
        assert!(server.url().ends_with(&format!("://docket:s3cret@localhost:{}", server.address().port())));
        let certificate = std::fs::read(server.certificate()).expect("a certificate");
        let certificate = Certificate::from_pem(&certificate).expect("a certificate");
        let parameters = TlsParameters::builder("localhost".to_owned()).add_root_certificate(certificate);
        let parameters = parameters.build().expect("they are right");
        let client = |encryption, password: &str| {
            let client = Client::builder_dangerous("localhost").port(server.address().port()).tls(encryption);
            client.credentials(Credentials::new("docket".to_owned(), password.to_owned())).build()
        };
        let encryption = match tls {
            Tls::StartTls => ClientTls::Required(parameters),
            Tls::Implicit | Tls::None => ClientTls::Wrapper(parameters),
        };
        client(encryption.clone(), "s3cret").send(mail("1")).await.expect("it takes it");
        client(encryption, "wrong").send(mail("2")).await.expect_err("it does not know this one");
        let plain = timeout(MOMENT, client(ClientTls::None, "s3cret").send(mail("3"))).await;
        assert!(!matches!(plain, Ok(Ok(_))), "it is not encrypted: {plain:?}");
        let mails = server.mails();
        let [kept] = &mails[..] else { panic!("{mails:?}") };
        assert_eq!((kept.user.as_deref(), kept.encrypted), (Some("docket"), true));
    }
}
