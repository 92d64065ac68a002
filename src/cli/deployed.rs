//! What the files for deployment say to docket, read as docket reads it: every variable and argument must be one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use actors::subscriber::registry::{self, Parts, Registered};
use actors::testing::mailer::MemoryMailer;
use clap::Parser;
use serde_json::Value;

use super::Args;
use crate::auth::KeyHash;
use crate::config::Config;

/// The last parts to stop have a few seconds each.
const STOP_AFTER_DEADLINE_S: u64 = 15;

type Environment = BTreeMap<String, String>;

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// As a container starts: these arguments, this environment and no file.
fn started(arguments: &[String], environment: &Environment) -> (Args, Config) {
    let arguments = std::iter::once("docket").chain(arguments.iter().map(String::as_str));
    let args = Args::try_parse_from(arguments).unwrap_or_else(|error| panic!("{error}"));
    let unknown: Vec<_> = environment.keys().filter(|name| !is_ours(name)).collect();
    assert!(unknown.is_empty(), "docket does not read {unknown:?}");
    let config = Config::load(None, environment.clone()).unwrap_or_else(|error| panic!("{error}"));
    (args, config)
}

fn is_ours(name: &str) -> bool {
    name.starts_with("DOCKET__") || ["MONGODB_URI", "RABBITMQ_URL"].contains(&name)
}

/// What the image sets for every container.
fn of_image() -> Environment {
    let dockerfile = read("Dockerfile");
    let lines = dockerfile.lines().filter_map(|line| line.strip_prefix("ENV "));
    let settings = lines.flat_map(str::split_whitespace).filter_map(|setting| setting.split_once('='));
    let environment: Environment = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert!(environment.contains_key("DOCKET__HTTP__BIND"), "{environment:?}");
    environment
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

fn settings(value: &Value) -> Environment {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned())).collect()
}

/// The parts that there are.
fn parts() -> BTreeSet<&'static str> {
    let subscribers = registry::all(&Parts { mailer: std::sync::Arc::new(MemoryMailer::default()) });
    subscribers.iter().map(Registered::name).chain(["orders"]).collect()
}

#[test]
fn the_image_alone_lets_nobody_in_and_says_what_to_do() {
    let Err(error) = Config::load(None, of_image()) else { panic!("everybody is let in") };
    let said = error.to_string();
    assert!(said.contains("http.bind") && said.contains("auth.keys") && said.contains("auth.open"), "{said}");

    let mut environment = of_image();
    environment.insert("DOCKET__AUTH__OPEN".to_owned(), "true".to_owned());
    started(&[], &environment);
}

#[test]
fn what_compose_says_is_a_configuration() {
    let compose: Value = serde_saphyr::from_str(&read("compose.yaml")).expect("YAML");
    let services = compose["services"].as_object().expect("services");
    let ours: Vec<_> = services.values().filter(|service| service["image"] == "docket").collect();
    assert_eq!(ours.len(), 2);
    for service in ours {
        let environment = of_image().into_iter().chain(settings(&service["environment"])).collect();
        let (_, config) = started(&texts(&service["command"]), &environment);
        for (address, what) in
            [(config.mongodb.uri.expose(), "mongodb://mongodb:"), (config.rabbitmq.uri.expose(), "@rabbitmq:")]
        {
            assert!(address.contains(what), "{what}");
        }
        let check = texts(&service["healthcheck"]["test"]);
        Args::try_parse_from(&check[1..]).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The resources of a cluster, as they lie in the folder.
struct Manifests(Vec<Value>);

impl Manifests {
    fn read() -> Self {
        let kustomization: Value = serde_saphyr::from_str(&read("deploy/kubernetes/kustomization.yaml")).expect("YAML");
        let mut files: BTreeSet<String> = texts(&kustomization["resources"]).into_iter().collect();
        files.insert("secrets.example.yaml".to_owned());
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes");
        let there = fs::read_dir(folder).expect("the manifests").map(|entry| entry.expect("a file").file_name());
        let there = there.map(|name| name.into_string().expect("UTF-8")).filter(|name| name != "kustomization.yaml");
        assert_eq!(there.collect::<BTreeSet<_>>(), files, "the kustomization names what there is");

        let text = |file: &String| read(&format!("deploy/kubernetes/{file}"));
        let read = |file| serde_saphyr::from_multiple::<Value>(&text(file)).expect("YAML");
        Self(files.iter().flat_map(read).collect())
    }

    fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |resource| resource["kind"] == kind)
    }

    fn named(&self, kind: &str, name: &Value) -> &Value {
        let found = self.of(kind).find(|resource| resource["metadata"]["name"] == *name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// Everything that a container finds in its environment.
    fn environment(&self, container: &Value) -> Environment {
        let mut environment = of_image();
        for source in container["envFrom"].as_array().expect("envFrom") {
            environment.extend(match source["configMapRef"]["name"].as_str() {
                Some(name) => settings(&self.named("ConfigMap", &name.into())["data"]),
                None => settings(&self.named("Secret", &source["secretRef"]["name"])["stringData"]),
            });
        }
        for variable in container["env"].as_array().expect("env") {
            environment.insert(variable["name"].as_str().expect("a name").to_owned(), "pod-1".to_owned());
        }
        // As somebody has filled them in, each with another one.
        for value in environment.values_mut() {
            for number in 0..value.matches("HASH").count() {
                *value = value.replacen("HASH", &KeyHash::of(&number.to_string()).written(), 1);
            }
        }
        environment
    }
}

/// A deployment's pod and its only container.
fn pod(deployment: &Value) -> (&Value, &Value) {
    let pod = &deployment["spec"]["template"]["spec"];
    (pod, &pod["containers"][0])
}

#[test]
fn what_the_manifests_say_is_a_configuration() {
    let manifests = Manifests::read();
    let mut running = BTreeSet::new();
    for deployment in manifests.of("Deployment") {
        let (pod, container) = pod(deployment);
        let (args, config) = started(&texts(&container["args"]), &manifests.environment(container));
        for part in &args.only {
            assert!(parts().contains(part.as_str()), "there is no {part}");
            assert!(running.insert(part.clone()), "{part} is deployed twice");
        }
        assert_eq!(deployment["metadata"]["name"].as_str(), args.only.first().map(String::as_str));
        if !args.only.iter().any(|part| part == "orders") {
            let of_orders = |deployment: &&Value| deployment["metadata"]["name"] == "orders";
            let orders = manifests.of("Deployment").find(of_orders).expect("the order service");
            let (_, orders) = started(&[], &manifests.environment(self::pod(orders).1));
            assert_ne!(config.mongodb.uri.expose(), orders.mongodb.uri.expose(), "credentials of its own");
            let host = config.history.url.trim_start_matches("http://").trim_end_matches(":8081");
            assert!(orders.ops.hosts.iter().any(|name| name == host), "{host} is no name of the order service's");
            assert_eq!(manifests.named("Service", &host.into())["spec"]["ports"][0]["targetPort"], "ops");
        }
        let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().expect("a pause");
        let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("a grace period");
        assert!(grace >= pause + config.shutdown.deadline_ms.div_ceil(1_000) + STOP_AFTER_DEADLINE_S, "{grace} s");
    }
    assert_eq!(running, parts().into_iter().map(str::to_owned).collect(), "every part is deployed");
}

#[test]
fn services_budgets_and_policies_mean_pods_that_there_are() {
    let manifests = Manifests::read();
    let labels: Vec<_> = manifests.of("Deployment").map(|it| &it["spec"]["template"]["metadata"]["labels"]).collect();
    for deployment in manifests.of("Deployment") {
        let spec = &deployment["spec"];
        assert_eq!(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]);
    }
    let services = manifests.of("Service").map(|service| &service["spec"]["selector"]);
    let budgets = manifests.of("PodDisruptionBudget").map(|budget| &budget["spec"]["selector"]["matchLabels"]);
    let policies = manifests.of("NetworkPolicy").map(|policy| &policy["spec"]["podSelector"]["matchLabels"]);
    let selectors: Vec<_> = services.chain(budgets).chain(policies.filter(|selector| !selector.is_null())).collect();
    assert!(selectors.len() >= 5);
    for selector in selectors {
        assert!(labels.contains(&selector), "{selector}");
    }
}
