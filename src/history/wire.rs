//! What is said between an order service and those who read its history: JSON, one object a line on a stream.
//!
//! Commits travel as they are stored. Positions are one word, which nobody but the log needs to understand.

use std::borrow::Cow;
use std::time::Duration;

use actors::commit::{Commit, CommitId, NotACommit};
use actors::history::Head;
use actors::log::{LogId, Position};
use actors::nodes::{Process, Seen};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Of which shape all this is. Another number is another language.
pub const FORMAT: u32 = 1;

/// Something is said on a stream at least as often as this.
pub const ALIVE_EVERY: Duration = Duration::from_secs(2);

/// Most commits in one answer.
pub const PAGE_COMMITS_MAX: usize = 1_000;

/// Most bytes of commits in one answer, but for a single commit that is larger.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// What the other side is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The version of its program.
    pub version: String,
    /// Its [`FORMAT`].
    pub format: u32,
}

/// Some commits, as they are stored.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page<'a> {
    /// Each the text of [`Commit::encoded`].
    #[serde(borrow)]
    pub commits: Vec<&'a RawValue>,
}

/// One line of a stream. One that says nothing says that the other side is there.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Line<'a> {
    /// The [`FORMAT`], in the first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<u32>,
    /// Behind what this line tells: where to go on after it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Cow<'a, str>>,
    /// A commit, the text of [`Commit::encoded`].
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<&'a RawValue>,
    /// How far a commit reached, where only that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// Why the stream ends here.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem<'a>>,
}

/// A problem, as far as a program needs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem<'a> {
    /// `/problems/NAME`.
    #[serde(borrow)]
    pub r#type: Cow<'a, str>,
    /// In words.
    #[serde(borrow)]
    pub detail: Cow<'a, str>,
}

/// Where the page of a kind of problem is.
pub const PROBLEMS: &str = "/problems/";

impl Problem<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.r#type.strip_prefix(PROBLEMS).unwrap_or(&self.r#type)
    }
}

/// The processes that are known.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeList {
    /// Each with the time since it was last heard of.
    pub nodes: Vec<Node>,
}

/// A process in the list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// What it said of itself.
    pub process: Process,
    /// How long ago.
    pub silent_for_ms: u64,
}

impl From<Seen> for Node {
    fn from(Seen { process, silent_for }: Seen) -> Self {
        Self { process, silent_for_ms: u64::try_from(silent_for.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl From<Node> for Seen {
    fn from(Node { process, silent_for_ms }: Node) -> Self {
        Self { process, silent_for: Duration::from_millis(silent_for_ms) }
    }
}

/// A commit as it is stored, to be put into JSON.
///
/// # Errors
/// When it is no JSON, which nothing that was stored is known to be.
pub fn raw(commit: &Commit) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_str(commit.encoded())
}

/// A commit as it came.
///
/// # Errors
/// When it is none.
pub fn commit(raw: &RawValue) -> Result<Commit, NotACommit> {
    Commit::decode(raw.get())
}

/// In the place of a commit's id where there is none.
const NONE: &str = "-";

/// A position as one word: log, commit and the log's own mark.
pub fn position(position: &Position) -> String {
    let commit = position.commit.map_or_else(|| NONE.to_owned(), |commit| commit.0.to_string());
    format!("{}.{commit}.{}", position.log.0, position.token)
}

/// The position that such a word is; `None` when it is another word.
pub fn read_position(text: &str) -> Option<Position> {
    let mut parts = text.splitn(3, '.');
    let (log, commit, token) = (parts.next()?, parts.next()?, parts.next()?);
    let log = LogId(log.parse().ok()?);
    let commit = match commit {
        NONE => None,
        id => Some(CommitId(id.parse().ok()?)),
    };
    Some(Position { log, token: token.to_owned(), commit })
}

#[cfg(test)]
mod tests {
    use actors::testing::commits::first;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_position_is_one_word_and_back() {
        let log = LogId(Uuid::now_v7());
        let tokens = ["0", "", "82AB0C 1795000000.7 01939c2e-0000-7000-8000-000000000000:0000000001"];
        for (token, commit) in tokens.into_iter().flat_map(|token| [(token, None), (token, Some(first(1).id()))]) {
            let there = Position { log, token: token.to_owned(), commit };
            assert_eq!(read_position(&position(&there)), Some(there));
        }
    }

    #[test]
    fn another_word_is_no_position() {
        let log = Uuid::now_v7();
        for word in ["", "now", "1.2.3", &format!("{log}.-"), &format!("{log}.x.1"), &format!("{log}..1")] {
            assert_eq!(read_position(word), None, "{word}");
        }
    }

    #[test]
    fn a_commit_travels_as_it_is_stored() {
        let stored = first(2);
        let line = Line { commit: Some(raw(&stored).expect("JSON")), ..Line::default() };
        let text = serde_json::to_string(&line).expect("a line");
        let back: Line<'_> = serde_json::from_str(&text).expect("a line");
        assert_eq!(commit(back.commit.expect("a commit")).expect("a commit").encoded(), stored.encoded());
        assert_eq!(serde_json::to_string(&Line::default()).expect("a line"), "{}");
    }
}
