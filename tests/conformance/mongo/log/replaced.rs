//! The store is exchanged under a process that runs on it: it is seen, and said.

use actors::log::{From, LogError};
use actors::testing::conformance::{PATIENCE, block_on};
use docket::mongo::Store;
use mongodb::bson::doc;
use servers::{MongoDatabase, MongoServer};

use super::{fails, follow_now, follow_soon, given, one, open, open_in, refused};

/// How the collection of commits can go.
#[derive(Clone, Copy, Debug)]
enum Way {
    Drop,
    Rename,
    RenameOver,
    DropDatabase,
}

async fn replaced(store: &Store) -> String {
    tokio::time::timeout(PATIENCE, store.replaced()).await.expect("it is seen")
}

#[test]
fn commits_that_vanish_under_a_process_are_seen() {
    block_on(async {
        for way in [Way::Drop, Way::Rename, Way::RenameOver, Way::DropDatabase] {
            let server = MongoDatabase::new();
            let store = open_in(server.uri(), server.name()).await;
            let mut follow = follow_now(&store).await;
            let position = follow.position();
            let told = tokio::spawn({
                let store = store.clone();
                async move { replaced(&store).await }
            });
            let commit = one(&store).await;
            assert_eq!(given(&mut follow, 1).await, [commit]);
            let client = mongodb::Client::with_uri_str(server.uri()).await.expect("an address");
            go(&client, server.name(), way).await;
            let why = told.await.expect("no panic");
            assert!(why.contains("not the same any more"), "{way:?}: {why}");
            let error = fails(&mut follow).await;
            assert!(matches!(error, LogError::NoPosition(_)), "{way:?}: {error:?}");
            refused(&store, &position).await;
            assert_eq!(replaced(&store).await, why, "who asks later is told, too");
        }
    });
}

async fn go(client: &mongodb::Client, name: &str, way: Way) {
    let database = client.database(name);
    let commits = database.collection::<mongodb::bson::Document>("commits");
    let rename = async |from: &str, to: &str| {
        let rename =
            doc! { "renameCollection": format!("{name}.{from}"), "to": format!("{name}.{to}"), "dropTarget": true };
        client.database("admin").run_command(rename).await.expect("renamed");
    };
    match way {
        Way::Drop => commits.drop().await.expect("dropped"),
        Way::Rename => rename("commits", "kept").await,
        Way::RenameOver => {
            database.create_collection("older").await.expect("created");
            rename("older", "commits").await;
        }
        Way::DropDatabase => database.drop().await.expect("dropped"),
    }
}

#[test]
fn a_copy_that_is_restored_under_a_process_is_seen() {
    block_on(async {
        let mut server = MongoServer::start().await;
        let store = open(&server.uri()).await;
        one(&store).await;
        server.back_up().await;
        let told = tokio::spawn({
            let store = store.clone();
            async move { replaced(&store).await }
        });
        let mut follow = follow_soon(&store, From::Now).await;
        one(&store).await;
        given(&mut follow, 1).await;
        let position = follow.position();
        server.restore().await;
        let why = told.await.expect("no panic");
        assert!(why.contains("the store does not have the commit"), "{why}");
        refused(&store, &position).await;
    });
}
