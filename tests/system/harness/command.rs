//! A command as an operator types it, and what it says.

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

/// `docket ARGUMENTS --url` that docket.
pub(crate) fn ask(folder: &Folder, docket: &Docket, arguments: &[&str]) -> Output {
    Output::of(folder.command(arguments).args(["--url", &docket.ops]))
}
