//! Which letters a request is about.

use actors::clock::Timestamp;
use actors::subscriber::letters::{Filter, Place, State};

use super::super::parameters::{self, parameters};
use super::super::problem::Problem;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// Which letters, of whom.
pub(super) struct Wanted {
    pub(super) subscriber: Option<String>,
    pub(super) filter: Filter,
}

/// A page of them.
pub(super) struct Asked {
    pub(super) wanted: Wanted,
    pub(super) after: Option<Place>,
    pub(super) limit: usize,
}

impl Asked {
    /// As a query string has it.
    pub(super) fn of(query: &str) -> Result<Self, Problem> {
        let known = ["subscriber", "type", "group", "state", "from", "to", "limit", "cursor"];
        let [subscriber, event_type, group, state, from, to, limit, cursor] = parameters(query, known)?;
        let wanted =
            Wanted::of(subscriber, event_type, group.as_deref(), state.as_deref(), from.as_deref(), to.as_deref())?;
        let after = cursor.map(|cursor| cursor.parse()).transpose();
        let after = after.map_err(|_| Problem::malformed("cursor must be a next_cursor as it was given."))?;
        Ok(Self { wanted, after, limit: parameters::limit(limit.as_deref(), LIMIT_DEFAULT, LIMIT_MAX)? })
    }
}

impl Wanted {
    /// As the values of a query string or of a body have it.
    pub(super) fn of(
        subscriber: Option<String>,
        event_type: Option<String>,
        group: Option<&str>,
        state: Option<&str>,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Self, Problem> {
        let group = group.map(str::parse).transpose();
        let filter = Filter {
            event_type,
            group: group.map_err(|error| Problem::malformed(format!("group cannot be right: {error}.")))?,
            states: state.map_or_else(|| Ok(State::DEFAULT.to_vec()), states)?,
            from: from.map(|from| time("from", from)).transpose()?,
            to: to.map(|to| time("to", to)).transpose()?,
        };
        Ok(Self { subscriber, filter })
    }
}

fn states(text: &str) -> Result<Vec<State>, Problem> {
    let states: Option<Vec<_>> = text.split(',').map(State::from_name).collect();
    states.ok_or_else(|| {
        let names: Vec<_> = State::all().map(State::name).collect();
        Problem::malformed(format!("state must be one or more of {}, with commas between them.", names.join(", ")))
    })
}

fn time(name: &str, text: &str) -> Result<Timestamp, Problem> {
    // A plus that was not encoded arrives as a space.
    let hint = if text.contains(' ') { "; a + is written %2B" } else { "" };
    text.parse().map_err(|error| Problem::malformed(format!("{name} is {error}{hint}.")))
}
