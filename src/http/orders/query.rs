//! The query parameters of reads.

use actors::order::Version;
use actors::order::error::At;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::parameters::{self, parameters, whole};
use super::super::problem::Problem;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// Which state of an order.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "names the parameters for the OpenAPI document")]
pub(crate) struct VersionQuery {
    /// The state after that event. Not together with `at`.
    #[param(minimum = 1, maximum = 4294967295i64)]
    version: Option<u32>,
    /// The state at that moment, RFC 3339. Not together with `version`.
    #[param(format = DateTime, example = "2026-11-23T08:00:00Z")]
    at: Option<String>,
}

/// Which page of a trail.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "names the parameters for the OpenAPI document")]
pub(crate) struct TrailQuery {
    /// Only events after this version.
    #[param(minimum = 0, maximum = 4294967295i64, default = 0)]
    after: Option<u32>,
    /// At most so many events.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

/// Which state is asked for.
pub(super) fn at(query: &str) -> Result<At, Problem> {
    let [version, at] = parameters(query, ["version", "at"])?;
    match (version, at) {
        (None, None) => Ok(At::Now),
        (Some(_), Some(_)) => Err(Problem::malformed("version and at cannot be asked for together.")),
        (Some(version), None) => match whole(&version) {
            Some(version) if version > 0 => Ok(At::Version(Version(version))),
            _ => Err(Problem::malformed("version must be a whole number from 1 to 4294967295.")),
        },
        (None, Some(at)) => match at.parse() {
            Ok(at) => Ok(At::Time(at)),
            // A plus that was not encoded arrives as a space.
            Err(error) if at.contains(' ') => Err(Problem::malformed(format!("at is {error}; a + is written %2B."))),
            Err(error) => Err(Problem::malformed(format!("at is {error}."))),
        },
    }
}

/// After which version, and how many.
pub(super) fn page(query: &str) -> Result<(Version, usize), Problem> {
    let [after, limit] = parameters(query, ["after", "limit"])?;
    let after = match after.as_deref().map(whole) {
        None => Version::NONE,
        Some(Some(after)) => Version(after),
        Some(None) => return Err(Problem::malformed("after must be a whole number from 0 to 4294967295.")),
    };
    Ok((after, parameters::limit(limit.as_deref(), LIMIT_DEFAULT, LIMIT_MAX)?))
}

/// Commands have none: `?dry_run=true` must not do it.
pub(super) fn nothing(query: &str) -> Result<(), Problem> {
    parameters(query, []).map(|[]| ())
}
