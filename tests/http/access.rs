//! Who is let in, for every route there is: no key, a key of nobody, a key without the scope, the right one.

use std::time::{Duration, Instant};

use docket::auth::{KeyHash, Scope, Secret};
use docket::config::Config;
use docket::http::{Access, Address, RouteEntry, routes};
use reqwest::header::{AUTHORIZATION, HOST};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::{Docket, new_order, send};

const ORDER: &str = "01939c2e-0000-7000-8000-000000000000";

/// A docket with keys, and the keys.
struct Locked {
    docket: Docket,
    /// For each scope a key that has it alone, and one that has all others.
    keys: Vec<(Scope, Secret, Secret)>,
}

impl Locked {
    fn start() -> Self {
        let key = || Secret::new_key().expect("a key");
        let keys: Vec<_> = Scope::ALL.into_iter().map(|scope| (scope, key(), key())).collect();
        let mut lines = Vec::new();
        for (scope, alone, others) in &keys {
            let place = scope.name().replace(':', ".");
            lines.push(line(&format!("only.{place}"), alone, &[*scope]));
            let rest: Vec<_> = Scope::ALL.into_iter().filter(|other| other != scope).collect();
            lines.push(line(&format!("not.{place}"), others, &rest));
        }
        Self { docket: Docket::with(|config| set_keys(config, &lines.join("\n")), true), keys }
    }

    fn with(&self, scope: Scope) -> &str {
        let (_, alone, _) = self.keys.iter().find(|(it, ..)| *it == scope).expect("every scope");
        alone.expose()
    }

    fn without(&self, scope: Scope) -> &str {
        let (_, _, others) = self.keys.iter().find(|(it, ..)| *it == scope).expect("every scope");
        others.expose()
    }

    fn request(&self, route: &RouteEntry) -> RequestBuilder {
        request(&self.docket, route)
    }
}

fn line(name: &str, key: &Secret, scopes: &[Scope]) -> String {
    let scopes: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
    format!("{name} {} {}", KeyHash::of(key.expose()).written(), scopes.join(" "))
}

fn set_keys(config: &mut Config, lines: &str) {
    let environment = [("DOCKET__AUTH__KEYS".to_owned(), lines.to_owned())];
    config.auth.keys = Config::load(None, environment).expect("keys").auth.keys;
}

fn request(docket: &Docket, RouteEntry { address, method, path, .. }: &RouteEntry) -> RequestBuilder {
    let address = match address {
        Address::Callers => docket.http,
        Address::Operators => docket.ops,
    };
    let path = path.replace("{id}", ORDER).replace("{order}", ORDER).replace("{file:.*}", "index.html");
    let path = path.replace("{sku}", "A").replace("{name}", "nobody").replace("{subscriber}", "nobody");
    assert!(!path.contains('{'), "say here what {path} can be");
    let method = Method::from_bytes(method.as_str().as_bytes()).expect("a method");
    docket.client.request(method, format!("http://{address}{path}"))
}

#[actix_web::test]
async fn every_route_asks_for_its_scope_and_nothing_else() {
    let locked = Locked::start();
    let stranger = Secret::new_key().expect("a key");
    for route in routes() {
        let what = format!("{} {}", route.method, route.path);
        let plain = send(locked.request(&route)).await;
        let Access::Needs(scope) = route.access else {
            assert!(![401, 403].contains(&plain.status), "{what}: {}", plain.text);
            continue;
        };
        let unknown = send(locked.request(&route).bearer_auth(stranger.expose())).await;
        let lacking = send(locked.request(&route).bearer_auth(locked.without(scope))).await;
        let right = send(locked.request(&route).bearer_auth(locked.with(scope))).await;
        let statuses = (plain.status, unknown.status, lacking.status);
        assert_eq!(statuses, (401, 401, 403), "{what}: {}", plain.text);
        assert!(![401, 403, 405].contains(&right.status), "{what}: {}", right.text);
        assert_eq!(plain.header("www-authenticate"), Some("Bearer"), "{what}");
        assert_eq!(unknown.header("www-authenticate"), Some("Bearer error=\"invalid_token\""), "{what}");
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
        assert_eq!(lacking.header("www-authenticate"), Some(challenge.as_str()), "{what}");
        if route.method != "HEAD" {
            plain.is(401, "unauthorized");
            unknown.is(401, "unauthorized");
            let problem = lacking.is(403, "forbidden");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(scope.name())), "{problem}");
        }
    }
}

#[actix_web::test]
async fn what_is_open_is_what_must_be() {
    let mut open: Vec<_> = routes().into_iter().filter(|it| it.access == Access::Open).map(|it| it.path).collect();
    open.sort_unstable();
    open.dedup();
    assert_eq!(
        open,
        [
            "/asyncapi.json",
            "/docs",
            "/docs/{file:.*}",
            "/healthz",
            "/openapi.json",
            "/problems",
            "/problems/",
            "/problems/{name}",
            "/readyz",
        ]
    );
    for route in routes() {
        let reads = route.method.is_safe();
        let needed = match (route.address, route.path) {
            (_, path) if open.contains(&path) => continue,
            (_, "/api/import") => Scope::OrdersWrite,
            // Whoever reads the history says there that it is there. Nothing rests on it.
            (_, "/history/nodes") => Scope::OpsRead,
            // A trial looks.
            (_, "/api/subscribers/{name}/try/{order}") => Scope::OpsRead,
            // So does a dry run; what is more than that is refused by the handler.
            (_, "/api/dead-letters/retry" | "/api/dead-letters/{subscriber}/{id}/retry") => Scope::OpsRead,
            (Address::Callers, _) if reads => Scope::OrdersRead,
            (Address::Callers, _) => Scope::OrdersWrite,
            (Address::Operators, _) if reads => Scope::OpsRead,
            (Address::Operators, _) => Scope::OpsWrite,
        };
        assert_eq!(route.access, Access::Needs(needed), "{} {}", route.method, route.path);
    }
}

#[actix_web::test]
async fn the_document_says_which_scope_each_operation_needs() {
    let open = Docket::start().get("/openapi.json").await.json();
    assert!(open["components"]["securitySchemes"].is_null());
    let document = Locked::start().docket.get("/openapi.json").await.json();
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            assert!(open["paths"][path][method]["security"].is_null(), "{method} {path}");
            let mut all = routes().into_iter();
            let route = all.find(|it| it.path == path && it.method.as_str().eq_ignore_ascii_case(method));
            match route.unwrap_or_else(|| panic!("{method} {path} is not served")).access {
                Access::Open => assert!(operation["security"].is_null(), "{method} {path}"),
                Access::Needs(scope) => {
                    assert_eq!(operation["security"], json!([{"key": [scope.name()]}]), "{method} {path}");
                    let responses = &operation["responses"];
                    assert!(responses["401"].is_object() && responses["403"].is_object(), "{method} {path}");
                }
            }
        }
    }
}

#[actix_web::test]
async fn a_key_is_read_from_one_header_and_no_other_way() {
    let locked = Locked::start();
    let key = locked.with(Scope::OrdersRead);
    let read = || locked.docket.request("GET", &format!("/orders/{ORDER}"));
    for right in [format!("Bearer {key}"), format!("bearer {key}"), format!("BEARER  {key} ")] {
        send(read().header(AUTHORIZATION, &right)).await.is(404, "not-found");
    }
    let longer = format!("Bearer {key}0");
    for wrong in ["", "Bearer", "Bearer ", key, &format!("Basic {key}"), &format!("Bearer {key} {key}"), &longer] {
        send(read().header(AUTHORIZATION, wrong)).await.is(401, "unauthorized");
    }
    let header = format!("Bearer {key}");
    send(read().header(AUTHORIZATION, &header).header(AUTHORIZATION, &header)).await.is(401, "unauthorized");
    send(read().header(AUTHORIZATION, b"Bearer \xff".as_slice())).await.is(401, "unauthorized");
    send(locked.docket.request("GET", &format!("/orders/{ORDER}?access_token={key}"))).await.is(401, "unauthorized");
    send(locked.docket.request("GET", &format!("/%6Frders/{ORDER}"))).await.is(401, "unauthorized");
}

#[actix_web::test]
async fn nothing_of_a_strangers_body_is_waited_for() {
    let locked = Locked::start();
    let began = Instant::now();
    let head =
        "POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 65536\r\n\r\n{";
    let answer = locked.docket.say(head.as_bytes().to_vec()).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let lines =
        "POST /api/import HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":".to_owned();
    let answer = locked.docket.say_to(locked.docket.ops, lines.into_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(5), "somebody waited for {:?}", began.elapsed());
}

#[actix_web::test]
async fn a_body_without_end_ends_with_the_answer_whatever_that_is() {
    let docket = Docket::start();
    let began = Instant::now();
    let most = "x".repeat(200_000);
    for (head, body, status) in [
        ("GET /nowhere", "{", 404),
        ("PATCH /orders", "{", 405),
        ("POST /orders\r\nContent-Type: text/plain", "{", 415),
        ("POST /orders\r\nContent-Type: application/json", most.as_str(), 413),
        ("GET /healthz", "{", 200),
    ] {
        let (line, headers) = head.split_once("\r\n").unwrap_or((head, "X-None: 0"));
        let said = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n",
            body.len()
        );
        let answer = docket.say(said.into_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
    }
    assert!(began.elapsed() < Duration::from_secs(15), "somebody waited for {:?}", began.elapsed());
}

#[actix_web::test]
async fn a_whole_body_that_nobody_wants_leaves_the_connection_open() {
    let docket = Docket::start();
    let unwanted = "POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let last = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = docket.say(format!("{unwanted}{last}").into_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("HTTP/1.1 200 "), "{answer}");
}

#[actix_web::test]
async fn a_command_is_its_keys_and_its_replay_is_everybodys() {
    let locked = Locked::start();
    let place = |key: &str| locked.docket.request("POST", "/orders").json(&new_order()).bearer_auth(key);
    let first = send(place(locked.with(Scope::OrdersWrite)).header("Idempotency-Key", "k-1")).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let origin = locked.docket.stub.last_origin();
    assert_eq!((origin.authtype.as_ref(), origin.authid.as_ref()), ("api_key", "only.orders.write"));

    let again = send(place(locked.without(Scope::OpsRead)).header("Idempotency-Key", "k-1")).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(again.json(), first.json());
    let trail = format!("{}/events", first.header("location").expect("a location"));
    let trail = send(locked.docket.request("GET", &trail).bearer_auth(locked.with(Scope::OrdersRead))).await.json();
    assert_eq!(trail["events"][0]["authid"], "only.orders.write", "{trail}");
}

#[actix_web::test]
async fn without_keys_a_key_is_nothing() {
    let docket = Docket::start();
    let key = Secret::new_key().expect("a key");
    let placed = send(docket.request("POST", "/orders").json(&new_order()).bearer_auth(key.expose())).await;
    assert_eq!(placed.status, 201);
    assert_eq!(docket.stub.last_origin().authid, "anonymous");
}

#[actix_web::test]
async fn a_name_that_somebody_pointed_at_this_address_reads_nothing_without_a_key() {
    let foreign = |request: RequestBuilder| send(request.header(HOST, "evil.example:8080"));
    let (closed, open) = (Docket::start(), Docket::with(|config| config.auth.open = true, true));
    let named = Docket::with(|config| config.http.hosts = vec!["evil.example".to_owned()], true);
    for route in routes() {
        let what = format!("{} {}", route.method, route.path);
        let refused = !route.method.is_safe() || route.access != Access::Open;
        assert_eq!(foreign(request(&closed, &route)).await.status == 403, refused, "{what}");
        assert_eq!(foreign(request(&open, &route)).await.status == 403, !route.method.is_safe(), "{what}");
        if route.address == Address::Callers {
            assert_ne!(foreign(request(&named, &route)).await.status, 403, "{what}");
        }
    }
    // Whoever shows a key is no page in somebody's browser; what changes something is refused all the same.
    let locked = Locked::start();
    for route in routes() {
        let Access::Needs(scope) = route.access else { continue };
        let answer = foreign(locked.request(&route).bearer_auth(locked.with(scope))).await;
        assert_eq!(answer.status == 403, !route.method.is_safe(), "{} {}", route.method, route.path);
        let page = locked.request(&route).bearer_auth(locked.with(scope)).header("Origin", "http://evil.example");
        assert_eq!(send(page).await.status == 403, !route.method.is_safe(), "{} {}", route.method, route.path);
    }
}
