//! Guards: the places where an invariant would break if one condition were missing. Each has a name, so that the
//! simulation can switch it off and must then find a violation (docs/reliability.md, "Guards switched off in turn").
//!
//! Without the feature `mutants`, which only the simulation's binary and tests are ever built with, every guard is on and
//! [`on`] compiles to nothing.

macro_rules! guards {
    ($($name:ident $invariant:literal $what:literal,)*) => {
        /// One guard.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Guard {
            $(#[doc = $what] $name,)*
        }

        impl Guard {
            /// All, in the order of the data path.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The invariant that it serves first of all.
            #[must_use]
            pub fn invariant(self) -> &'static str {
                match self { $(Self::$name => $invariant,)* }
            }

            /// What holds because of it.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }
        }
    };
}

guards! {
    // List-watch and agent.
    UnkeyedItems "I3" "a list with an item that could not be keyed concludes nothing",
    RewindByList "I3" "a list older than what was reported is one of a rewound server",
    RewindByProbe "I3" "before a watch goes on, the server is asked whether it is behind the checkpoint",
    RewindByObject "I3" "a listed object older than it was known is one of a rewound server",
    RewindByLeaseAtAgent "I3" "a Lease counter that went back is a rewind, at the agent",
    RewindByLeaseAtHub "I3" "a Lease counter that went back is a rewind, at the hub",
    RewindKnownToHub "I3" "what the hub says before it knows of a rewind is of the time before",
    UnseenAfterRewind "I3" "what the list after a rewind lacks is unseen, not deleted",
    DiscoveryAfterList "I3" "deletes of a list wait for a later look at discovery",
    LeaseAfterList "I3" "deletes of a list wait for a later read of the Lease",
    LeaseAfterReread "I3" "a single read that finds nothing waits for a later read of the Lease",
    RunOfWatch "I3" "what an earlier task of a watch says does not count",
    ResumeSameInterest "I3" "a watch goes on from a checkpoint only if the interest is the same",
    LiveAfterQueue "I3" "a watch says that it is live behind everything that is queued",
    ReplayUndoesNothing "I2" "what a watch replays does not undo a newer state",
    CheckpointBehindQueue "I2" "a checkpoint passes nothing that is queued",
    CheckpointBehindConclusion "I2" "a checkpoint does not pass deletes that a list has still to conclude",
    CheckpointVoidWhileListing "I2" "while a list is under way there is no checkpoint",
    LastStateNotOverwritten "I5" "a queued delta that alone tells a last state is not overwritten",
    IndexSureOfAbsence "I6" "a create goes without a look only if the index is sure that nothing is there",
    // Session and ingest.
    AckAfterCommit "I1" "an ack leaves after the commit",
    HubBehindAgent "I1" "an agent whose acked batches the hub does not have starts anew",
    AgentAheadOfHub "I1" "an agent that cannot send what comes next starts anew",
    FencedSession "I1" "messages of a session that was taken over are dropped",
    SessionEndsLive "I3" "what an ended session told of its watches does not count",
    FailingBeforeItems "I3" "a watch that is no longer live is not relied on for what comes with that news",
    LiveByInterest "I3" "a watch is live only as judged by the interest that is wanted now",
    EchoOrder "I2" "an observation older than our own write is no news",
    UidChangeIsDelete "I5" "the predecessor under one name gets a tombstone",
    ElderGoes "I5" "the end of a younger life ends an elder one under its name, too",
    // Selection and plan.
    PoliciesKnown "I3" "before the policies were read nothing is concluded from the lack of one",
    SourceUnknown "I3" "a source that is not there counts as gone only if its watch is live",
    TargetUnknown "I3" "nothing is written to a target whose watch is not live",
    CopyByRecord "I9" "what the record names is no source",
    CopyByMarks "I9" "what carries genuine marks is no source",
    CopyByEntry "I9" "what has a managedFields entry of ours and no marks is no source",
    MarksStripped "I9" "marks of a source are not copied",
    MarksMac "I6" "marks count only with our MAC",
    MarksTarget "I6" "marks count only in the cluster and under the key that they name",
    MarksWhileBusy "I6" "marks seen while a step is under way mean nothing",
    UnansweredCreate "I6" "marks with the nonce of a create that was not answered are looked at by the agent first",
    RecordUid "I6" "an object of another uid than the record's is not ours",
    MarksOfOtherSource "I6" "without a record, marks of another source do not make an object ours",
    ForgedMarks "I6" "an object with forged marks is not ours",
    NoMarks "I6" "an object without marks or record is not ours",
    OneStepPerKey "I8" "one step of an object at a time",
    DesiredDigest "I8" "the body that was written last is not written again",
    ComparedAfterWrite "I17" "in step is what was compared with what was asked for, after a write and where nobody knows of one",
    OwnedProjection "I8" "fields as the last write left them are no drift",
    // Deletes.
    ContainerUnknown "I7" "a delete waits until it is known whether its container went, too",
    ContainerGone "I7" "a delete that follows a namespace or definition is held",
    ContainerAtImage "I7" "the container is looked at once more when the image is there",
    SourceRewound "I3" "a delete of what a rewind lost is held",
    SourceMissing "I3" "a delete is held where nobody saw the source deleted",
    RecoveredHeld "I6" "a copy that nothing accounts for is held",
    HeldStays "I7" "what was held stays so, also where the reason could no longer be seen",
    BudgetLimit "I7" "a burst beyond the budget is held",
    BudgetLatch "I7" "a breach latches",
    ImageOfRecord "I4" "only the image of the recorded uid is archived for a delete",
    ArchiveBeforeDelete "I4" "a delete waits for the archive",
    DeleteAfterCommit "I4" "reads for the archive and deletes leave after the commit",
    StaleDeleteReadsAgain "I4" "a delete of a state that is no longer there reads and archives again",
    DeleteNamesUid "I4" "a delete names the uid",
    DeleteNamesVersion "I4" "a delete names the resourceVersion",
    // Writer.
    UpdateNamesUid "I6" "an update names the uid",
    MetByCreate "I6" "marks that a create left on what it met mean nothing",
    NonceOfCreate "I6" "an object met by a create is ours only by its nonce",
    ControllersKeep "I6" "the entry of a controller at work is never handed over",
}

/// As many as a word has bits.
const _: () = assert!(Guard::ALL.len() <= 128);

/// Is this guard on?
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn on(_: Guard) -> bool {
    true
}

#[cfg(feature = "mutants")]
mod mutants;
#[cfg(feature = "mutants")]
pub use mutants::{on, switch_off};
