//! For `cargo xtask bench`: what the MongoDB databases of a docket hold, as tables of SQLite files, so that the same is asked
//! of them as of the embedded stores. It uses the driver alone: no code of docket answers for itself.
//!
//! `mongodb_tables URI DATABASE FOLDER` writes `orders.db` and, for each subscriber, `NAME.db`.

use std::error::Error;
use std::path::{Path, PathBuf};

use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, Collection, Database};
use rusqlite::{Connection, params};

type Done = Result<(), Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let [uri, name, folder] = arguments().ok_or("usage: mongodb_tables URI DATABASE FOLDER")?;
    let (client, folder) = (Client::with_uri_str(uri).await?, PathBuf::from(folder));
    std::fs::create_dir_all(&folder)?;
    orders(&client.database(&name), &folder.join("orders.db")).await?;
    for database in client.list_database_names().await? {
        if let Some(subscriber) = database.strip_prefix(&format!("{name}_")) {
            inbox(&client.database(&database), &folder.join(format!("{subscriber}.db"))).await?;
        }
    }
    Ok(())
}

fn arguments() -> Option<[String; 3]> {
    std::env::args().skip(1).collect::<Vec<_>>().try_into().ok()
}

async fn orders(database: &Database, file: &Path) -> Done {
    let mut file = Connection::open(file)?;
    let file = file.transaction()?;
    file.execute_batch("CREATE TABLE commits (key TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID")?;
    let mut add = file.prepare("INSERT INTO commits VALUES (?1, ?2)")?;
    each(&database.collection("commits"), |commit| {
        add.execute([commit.get_str("_id")?, commit.get_str("body")?])?;
        Ok(())
    })
    .await?;
    drop(add);
    Ok(file.commit()?)
}

async fn inbox(database: &Database, file: &Path) -> Done {
    let subscriber = database.collection::<Document>("subscriber").find_one(doc! {}).await?;
    let generation = number(&subscriber.ok_or("nobody's database")?, "generation")?;
    let mut file = Connection::open(file)?;
    let file = file.transaction()?;
    file.execute_batch(
        "CREATE TABLE inbox (order_id BLOB PRIMARY KEY, applied, seen, effects_waiting, hold_state, performing_state);
         CREATE TABLE effects (order_id BLOB, outcome)",
    )?;
    let mut add = file.prepare("INSERT INTO inbox VALUES (unhex(?1, '-'), ?2, ?3, ?4, ?5, ?6)")?;
    each(&database.collection("inbox"), |row| {
        if let Some(order) = row.get_str("_id")?.strip_prefix(&format!("{generation}/")) {
            let (applied, seen, waiting) =
                (number(row, "applied")?, number(row, "seen")?, number(row, "effects_waiting")?);
            add.execute(params![order, applied, seen, waiting, state(row, "applying"), state(row, "performing")])?;
        }
        Ok(())
    })
    .await?;
    drop(add);
    let mut add = file.prepare("INSERT INTO effects VALUES (unhex(?1, '-'), ?2)")?;
    each(&database.collection("effects"), |effect| {
        let outcome = effect.get_document("outcome").ok().and_then(|outcome| outcome.get_str("kind").ok());
        add.execute(params![effect.get_str("order")?, outcome])?;
        Ok(())
    })
    .await?;
    drop(add);
    Ok(file.commit()?)
}

async fn each(documents: &Collection<Document>, mut take: impl FnMut(&Document) -> Done) -> Done {
    let mut found = documents.find(doc! {}).await?;
    while found.advance().await? {
        take(&found.deserialize_current()?)?;
    }
    Ok(())
}

/// In how many bits it is stored is the driver's matter.
fn number(document: &Document, name: &str) -> Result<i64, Box<dyn Error>> {
    match document.get(name) {
        Some(Bson::Int32(number)) => Ok(i64::from(*number)),
        other => Ok(other.and_then(Bson::as_i64).ok_or_else(|| format!("no number {name}: {document}"))?),
    }
}

/// What keeps a lane back; nothing while it is ready.
fn state<'a>(row: &'a Document, lane: &str) -> Option<&'a str> {
    row.get_document(lane).ok()?.get_str("state").ok()
}
