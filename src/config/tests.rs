use toml::Table;

use super::*;
use crate::auth::{KeyHash, Secret};

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("docket.toml");
    std::fs::write(&path, file).expect("a file");
    let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Config::load(Some(&path), environment).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(file: &str, environment: &[(&str, &str)], words: &[&str]) {
    let message = load(file, environment).expect_err("a wrong configuration");
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

#[test]
fn the_contract_holds_without_any_file() {
    let config = load("", &[]).expect("the defaults");
    assert_eq!(config.http.bind, "127.0.0.1:8080".parse().expect("an address"));
    assert_eq!(config.ops.bind, "127.0.0.1:8081".parse().expect("an address"));
    assert_eq!(config.data.directory, PathBuf::from("data"));
    assert_eq!((config.orders.passivate_after_ms, config.orders.live_max), (120_000, 100_000));
    let subscriber = config.subscriber("notification");
    assert_eq!((subscriber.attempts_max, subscriber.backoff_first_ms), (5, 1_000));
    assert_eq!((subscriber.backoff_factor, subscriber.backoff_max_ms), (2.0, 60_000));
    assert_eq!(config.notification.from, "orders@localhost");
    assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Text, "info"));
    assert_eq!(config.mongodb.database, "docket");
}

#[test]
fn every_key_of_the_file_is_a_field_and_every_field_is_in_the_file() {
    let config = load("", &[]).expect("the defaults");
    let mut written = Table::try_from(&config).expect("a table");
    written.remove("subscribers");
    assert_eq!(written, DEFAULTS.parse::<Table>().expect("TOML"));
}

#[test]
fn every_key_of_the_file_says_what_it_means() {
    for line in DEFAULTS.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')) {
        assert!(line.contains(" # "), "{line} has no comment");
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let config = load(
        "[orders]\nlive_max = 10\n[http]\nhosts = [\"a.example\"]",
        &[
            ("DOCKET__ORDERS__LIVE_MAX", "20"),
            ("DOCKET__HTTP__BIND", "127.0.0.1:0"),
            ("DOCKET__OPS__HOSTS", "b.example, c.example"),
            ("DOCKET__LOG__LEVEL", "debug"),
            ("PATH", "/bin"),
            ("DOCKET_TEST_MONGODB_URI", "mongodb://localhost"),
        ],
    )
    .expect("right");
    assert_eq!(config.orders.live_max, 20);
    assert_eq!(config.http.hosts, ["a.example"]);
    assert_eq!(config.ops.hosts, ["b.example", "c.example"]);
    assert_eq!(config.http.bind.port(), 0);
    assert_eq!(config.log.level, "debug");
}

#[test]
fn a_subscriber_overrides_what_it_names_and_keeps_the_rest() {
    let config = load(
        "[subscriber]\nbackoff_first_ms = 5\n[subscribers.notification]\neffects_max = 7\nbackoff_factor = 3",
        &[("DOCKET__SUBSCRIBERS__ANALYTICS__BATCH_EVENTS_MAX", "9")],
    )
    .expect("right");
    let notification = config.subscriber("notification");
    assert_eq!((notification.effects_max, notification.backoff_first_ms), (7, 5));
    assert_eq!(notification.backoff_factor, 3.0);
    assert_eq!(config.subscriber("analytics").batch_events_max, 9);
    assert_eq!(config.subscriber("analytics").effects_max, 100);
    assert_eq!(config.subscriber("another"), &config.subscriber);
}

#[test]
fn an_unknown_key_is_refused_with_its_origin_and_the_nearest_known_one() {
    refused("[orders]\nlive_maxx = 1", &[], &["orders.live_maxx", "docket.toml", "did you mean orders.live_max?"]);
    refused("[order]\nlive_max = 1", &[], &["order.live_max", "orders.live_max?"]);
    refused("verbose = true", &[], &["verbose", "no such key"]);
    refused("[subscribers.notification]\nattempts = 1", &[], &["subscribers.notification.attempts_max?"]);
    refused("", &[("DOCKET__HTTP__BNID", "x")], &["DOCKET__HTTP__BNID", "http.bnid", "http.bind?"]);
    refused("", &[("DOCKET__HTTP", "x")], &["DOCKET__HTTP", "no such key"]);
}

#[test]
fn attempts_are_taken_for_all_subscribers_and_for_one() {
    let (key, value) = ("DOCKET__SUBSCRIBERS__NOTIFICATION__ATTEMPTS_MAX", "7");
    let config = load("[subscriber]\nattempts_max = 3\nfailing_orders_max = 4", &[(key, value)]).expect("right");
    assert_eq!(config.subscriber("notification").attempts_max, 7);
    assert_eq!(config.subscriber("another").attempts_max, 3);
    assert_eq!(config.subscriber("notification").failing_orders_max, 4);
    refused("[subscriber]\nattempts_max = 0", &[], &["subscriber.attempts_max", "1 or more"]);
}

#[test]
fn every_wrong_key_is_said_at_once() {
    refused(
        "[orders]\nlive_maxx = 1\nshards = \"two\"",
        &[("DOCKET__LOG__LEVLE", "x")],
        &["orders.live_maxx", "orders.shards", "DOCKET__LOG__LEVLE"],
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_what_would_be_right() {
    refused("[orders]\nlive_max = \"many\"", &[], &["orders.live_max", "whole number", "100000"]);
    refused("[orders]\nlive_max = 1.5", &[], &["orders.live_max", "whole number"]);
    refused("[orders]\nlive_max = -1", &[], &["orders.live_max", "docket.toml", "-1"]);
    refused("[orders]\nlive_max = 0", &[], &["orders.live_max", "docket.toml", "1 or more"]);
    refused("[auth]\nopen = \"yes\"", &[], &["auth.open", "true or false"]);
    refused("[http]\nbind = \"localhost\"", &[], &["http.bind", "docket.toml", "127.0.0.1:8080"]);
    refused("[log]\nformat = \"xml\"", &[], &["log.format", "xml", "`text`"]);
    refused("[log]\nlevel = \"=loud=\"", &[], &["log.level", "debug"]);
    refused("[log]\nlevel = \"inof\"", &[], &["log.level", "debug"]);
    refused("[subscriber]\nbackoff_factor = 0.5", &[], &["subscriber.backoff_factor", "1 to 100"]);
    refused("", &[("DOCKET__ORDERS__LIVE_MAX", "many")], &["DOCKET__ORDERS__LIVE_MAX", "whole number", "many"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/docket.toml")), []).expect_err("no file");
    assert!(error.to_string().contains("/nowhere/docket.toml"));
    refused("[ops]\n[orders", &[], &["docket.toml", "not TOML", "line 2"]);
}

#[test]
fn anything_but_loopback_needs_the_open_door_to_be_asked_for() {
    refused("[http]\nbind = \"0.0.0.0:8080\"", &[], &["http.bind", "auth.open = true"]);
    refused("", &[("DOCKET__OPS__BIND", "[::]:8081")], &["ops.bind", "DOCKET__OPS__BIND"]);
    load("[http]\nbind = \"0.0.0.0:8080\"\n[auth]\nopen = true", &[]).expect("asked for");
    refused("[http]\nbind = \"127.0.0.1:8081\"", &[], &["ops.bind", "already"]);
}

#[test]
fn keys_open_other_addresses_and_exclude_the_open_door() {
    let (hash, other) = (KeyHash::of("1").written(), KeyHash::of("2").written());
    let file = format!("[http]\nbind = \"0.0.0.0:8080\"\n[[auth.keys]]\nname = \"shop\"\nhash = \"{hash}\"\n");
    let whole = format!("{file}scopes = [\"orders:read\"]\n");
    assert_eq!(load(&whole, &[]).expect("right").auth.keys.iter().count(), 1);
    refused(&format!("{whole}[auth]\nopen = true"), &[], &["auth.open", "auth.keys"]);
    refused(&file, &[], &["auth.keys", "docket.toml", "key shop"]);

    let lines = format!("shop {hash} orders:read orders:write\nops {other} ops:read, \n");
    let config = load("", &[("DOCKET__AUTH__KEYS", &lines), ("DOCKET__OPS__BIND", "[::]:8081")]).expect("right");
    let names: Vec<_> = config.auth.keys.iter().map(|key| key.name.to_string()).collect();
    assert_eq!(names, ["shop", "ops"]);
    let doubled = format!("shop {hash} orders:read, shop {other} ops:read");
    refused("", &[("DOCKET__AUTH__KEYS", &doubled)], &["auth.keys", "DOCKET__AUTH__KEYS", "key shop"]);
}

#[test]
fn no_secret_is_repeated_however_wrongly_it_is_written() {
    let key = Secret::new_key().expect("a key");
    let (key, hash) = (key.expose(), KeyHash::of(key.expose()).written());
    for file in [
        format!("[auth]\nkeys = \"{key}\""),
        format!("[auth]\nkeys = [\"shop {hash} {key}\"]"),
        format!("[auth]\nkeys = [\"shop {hash} ops:read\""),
        format!("[history]\nkey = \"{key}"),
        format!("[history]\nkey = [\"{key}\"]"),
        format!("[rabbitmq]\nuri = [\"amqp://u:{key}@broker\"]"),
    ] {
        let said = load(&file, &[]).expect_err("wrong");
        assert!(!said.contains(&key[8..]) && !said.contains(&hash[8..]), "{said}");
    }
    let lines = format!("shop {hash} ops:read");
    let config = load("", &[("DOCKET__AUTH__KEYS", &lines)]).expect("right");
    let shown = format!("{config:?} {}", Table::try_from(&config).expect("a table"));
    assert!(shown.contains("shop") && !shown.contains(&hash[8..]), "{shown}");
}

#[test]
fn the_order_service_of_another_process_is_an_address_without_who_asks() {
    let config = load("[history]\nurl = \"http://orders:8081\"", &[]).expect("right");
    assert_eq!(config.history.url, "http://orders:8081");
    for wrong in ["orders:8081", "https://orders:8081", "http://ana:s3cret@orders:8081"] {
        let said = load("", &[("DOCKET__HISTORY__URL", wrong)]).expect_err("wrong");
        assert!(
            said.contains("history.url") && said.contains("http://orders:8081") && !said.contains("s3cret"),
            "{said}"
        );
    }
}

#[test]
fn what_this_version_cannot_do_is_never_taken_silently() {
    refused("[telemetry]\notlp_endpoint = \"http://a\"", &[], &["telemetry.otlp_endpoint", "this version"]);
}

#[test]
fn a_deployment_is_named_by_its_own_variable_and_refused_without_its_password() {
    let uri = "mongodb://docket:s3cret@db1:27017/?replicaSet=rs0";
    let config = load("", &[("MONGODB_URI", uri)]).expect("right");
    assert_eq!(config.mongodb.uri.expose(), uri);
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(load("", &[("MONGODB_URI", "")]).expect("not set").mongodb.uri.is_empty());

    refused("", &[("MONGODB_URI", "localhost")], &["mongodb.uri", "MONGODB_URI", "mongodb://"]);
    for wrong in
        ["mongodb://docket:s3cret@db1/?w=1", "mongodb://docket:s3/cret@db1", "mongodb://docket:s3cret@db1/shop"]
    {
        let said = load("", &[("MONGODB_URI", wrong)]).expect_err("wrong");
        assert!(said.contains("mongodb.uri") && !said.contains("cret"), "{said}");
    }
    let said = load("[mongodb]\nuri = \"mongodb://docket:s3cret@db1", &[]).expect_err("no end");
    assert!(said.contains("not TOML") && !said.contains("s3cret"), "{said}");
}

#[test]
fn a_broker_is_named_by_its_own_variable_and_refused_without_its_password() {
    let uri = "amqp://docket:s3cret@mq1:5672/shop";
    let config = load("", &[("RABBITMQ_URL", uri)]).expect("right");
    assert_eq!(config.rabbitmq.uri.expose(), uri);
    assert!(!format!("{config:?}").contains("s3cret"));
    refused("", &[("RABBITMQ_URL", "localhost")], &["rabbitmq.uri", "RABBITMQ_URL", "amqp://"]);
    for wrong in ["amqp://docket:s3cret@mq1/", "amqp://docket:s3/cret@mq1", "amqp://docket:s3cret@mq1?heartbeat=1"] {
        let said = load("", &[("RABBITMQ_URL", wrong)]).expect_err("wrong");
        assert!(said.contains("rabbitmq.uri") && !said.contains("cret"), "{said}");
    }
}

#[test]
fn a_mail_server_is_shown_without_its_password_and_left_before_its_mail_is_too_late() {
    let config = load("[notification]\nsmtp_url = \"smtps://u:s3cret@mail\"", &[]).expect("right");
    assert!(!format!("{config:?}").contains("s3cret"));
    let said = load("[notification]\nsmtp_url = \"smtp://u:s3cret@mail?x=1\"", &[]).expect_err("wrong");
    assert!(said.contains("notification.smtp_url") && !said.contains("s3cret"), "{said}");
    let late = "[notification]\nsmtp_url = \"smtp://mail\"\nsmtp_accept_timeout_ms = 65001";
    refused(
        late,
        &[],
        &["notification.smtp_accept_timeout_ms", "smtp_timeout_ms (10000)", "75000", "effect_timeout_ms"],
    );
    load(late, &[("DOCKET__SUBSCRIBERS__NOTIFICATION__EFFECT_TIMEOUT_MS", "150002")]).expect("enough");
    load(late, &[("DOCKET__NOTIFICATION__SMTP_TIMEOUT_MS", "9999")]).expect("enough");
}

#[test]
fn what_mongodb_cannot_take_is_refused() {
    for wrong in ["", "a/b", "admin", "a.b", "a_name_that_is_much_too_long_for_two_of_them"] {
        refused("", &[("DOCKET__MONGODB__DATABASE", wrong)], &["mongodb.database", "docket"]);
    }
    refused("[mongodb]\nselection_timeout_ms = 2000", &[], &["mongodb.selection_timeout_ms", "journal.write_max_ms"]);
    refused("[journal]\nwrite_max_ms = 1000", &[], &["mongodb.selection_timeout_ms", "journal.write_max_ms"]);
    refused("[mongodb]\npool_max = 0", &[], &["mongodb.pool_max", "1 or more"]);
    let short = "[mongodb]\nuri = \"mongodb://127.0.0.1\"\n[subscriber]\nlease_ms = 5999";
    refused(short, &[], &["subscriber.lease_ms", "6000 or more", "mongodb.answer_timeout_ms"]);
    let short = "[mongodb]\nuri = \"mongodb://127.0.0.1\"\n[rabbitmq]\nlease_ms = 5999";
    refused(short, &[], &["rabbitmq.lease_ms", "6000 or more", "mongodb.answer_timeout_ms"]);
    refused("[rabbitmq]\nlease_ms = 999", &[], &["rabbitmq.lease_ms", "1000 or more"]);
    load("[rabbitmq]\nlease_ms = 1000", &[]).expect("no transaction to wait for");
    refused("[mongodb]\npool_max = 7", &[], &["mongodb.pool_max", "8 or more"]);
    load("[mongodb]\npool_max = 8", &[]).expect("enough");
}

#[test]
fn a_group_that_would_need_two_messages_is_refused() {
    refused("[journal]\ngroup_bytes_max = 33554433", &[], &["journal.group_bytes_max", "33554432", "one message"]);
    refused("[journal]\ngroup_commits_max = 100001", &[], &["journal.group_commits_max", "100000"]);
    load("[journal]\ngroup_bytes_max = 33554432\ngroup_commits_max = 100000", &[]).expect("one message");
}
