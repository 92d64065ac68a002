//! A command as an operator types it, and what it says.

use std::io::{Seek, Write};
use std::process::Command;

use serde_json::Value;

use super::{Docket, Folder};

/// What a command wrote, and its exit code.
pub(crate) struct Output {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

impl Output {
    /// Runs it to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the built docket");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { out: text(output.stdout), err: text(output.stderr), code: output.status.code() }
    }

    /// What it printed, which is JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// The same, of one that ended with that code.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }
}

/// The same on a terminal, at which somebody types those lines. What it says is all in `out`.
pub(crate) fn ask_and_type(folder: &Folder, docket: &Docket, arguments: &[&str], lines: &str) -> Output {
    let asked = folder.command(arguments);
    let words = [asked.get_program()].into_iter().chain(asked.get_args()).map(|word| word.to_str().expect("UTF-8"));
    let words = [words.collect::<Vec<_>>(), vec!["--url", &docket.ops]].concat().join(" ");
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &words, "/dev/null"]);
    terminal.envs(asked.get_envs().filter_map(|(name, value)| Some((name, value?))));
    terminal.current_dir(asked.get_current_dir().expect("a folder"));
    let mut typed = tempfile::tempfile().expect("a file");
    typed.write_all(lines.as_bytes()).and_then(|()| typed.rewind()).expect("written");
    Output::of(terminal.stdin(typed))
}

/// `docket ARGUMENTS --url` that docket.
pub(crate) fn ask(folder: &Folder, docket: &Docket, arguments: &[&str]) -> Output {
    Output::of(folder.command(arguments).args(["--url", &docket.ops]))
}
