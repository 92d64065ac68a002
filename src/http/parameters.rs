//! Query parameters. One that is unknown, there twice or unreadable is refused: a caller who mistypes one must not be given
//! something else instead.

use actix_web::web::Query;

use super::problem::Problem;

/// The values of those that are known here, each once at most.
///
/// # Errors
/// 400 `malformed`, with the name.
pub(super) fn parameters<const N: usize>(
    query: &str,
    known: [&'static str; N],
) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    if query.is_empty() {
        return Ok(values);
    }
    let pairs = Query::<Vec<(String, String)>>::from_query(query);
    let pairs = pairs.map_err(|_| Problem::malformed("The query cannot be read."))?;
    for (name, value) in pairs.into_inner() {
        match known.iter().position(|known| *known == name) {
            None if known.is_empty() => return Err(Problem::malformed("There are no query parameters here.")),
            None => {
                let known = known.join(", ");
                return Err(Problem::malformed(format!("A query parameter is unknown; there are: {known}.")));
            }
            Some(index) if values[index].is_some() => {
                return Err(Problem::malformed(format!("{name} is there more than once.")));
            }
            Some(index) => values[index] = Some(value),
        }
    }
    Ok(values)
}

/// A whole number, written with digits only.
pub(super) fn whole(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// How many of something, from 1 to `max`.
///
/// # Errors
/// 400 `malformed`.
pub(super) fn limit(limit: Option<&str>, default: usize, max: usize) -> Result<usize, Problem> {
    match limit.map(whole) {
        None => Ok(default),
        Some(Some(limit)) if (1..=max).contains(&(limit as usize)) => Ok(limit as usize),
        Some(_) => Err(Problem::malformed(format!("limit must be a whole number from 1 to {max}."))),
    }
}
