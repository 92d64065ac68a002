//! Bugs put in on purpose, one at a time: the simulation (`actors/tests/simulation/`) shows that it finds each of them.
//! Nothing but its tests ever sets one.

/// A bug.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Deliveries are acknowledged before it is durable that they are seen.
    AcknowledgesEarly,
    /// *Seen* is overwritten, also with what is lower.
    OverwritesSeen,
    /// *Seen* is raised on whatever row is stored, which stays as it is: whoever raised it knew the row from its cache.
    RaisesSeenFromCache,
    /// A row is written without the condition on what it was when it was read.
    WritesUnfenced,
    /// Documents are read from a cache that outlives its term.
    ReadsStaleDocuments,
    /// A lane is ready when what was read of it is through, whatever else was seen.
    ReadyWithoutLooking,
    /// An event is handled although an earlier one of its order waits to be tried again.
    RetriesOutOfOrder,
    /// Effects are performed before the transaction that records them is stored.
    PerformsBeforeCommit,
    /// A command whose caller was told that nobody knows its outcome is decided again.
    DecidesAgain,
}

impl Mutant {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::AcknowledgesEarly,
        Self::OverwritesSeen,
        Self::RaisesSeenFromCache,
        Self::WritesUnfenced,
        Self::ReadsStaleDocuments,
        Self::ReadyWithoutLooking,
        Self::RetriesOutOfOrder,
        Self::PerformsBeforeCommit,
        Self::DecidesAgain,
    ];
}
