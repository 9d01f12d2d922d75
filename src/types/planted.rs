//! Owns the two ways in which the simulator looks into production code: faults that it plants to prove that they are found,
//! and states whose being reached it counts to prove that it comes everywhere.
//!
//! Never there in a server: without tests or the feature `planted-faults` [`planted`] is the constant false and [`reached`]
//! nothing, so the compiler leaves no trace of either. Lives on the thread that asks.

/// Declares an enum without values and the list of all that it has, in order.
macro_rules! listed {
    ($(#[$note:meta])* pub enum $name:ident { $($(#[$about:meta])* $variant:ident,)+ }) => {
        $(#[$note])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$about])* $variant,)+ }

        impl $name {
            pub const ALL: [$name; [$(stringify!($variant)),+].len()] = [$($name::$variant),+];
        }
    };
}

listed! {
    /// A fault that can be planted; at most one is at a time.
    pub enum Planted {
        // Engine.
        /// The ack leaves when the request does, not when the store has answered.
        AckBeforeCommit,
        /// A failed append is acknowledged.
        FailedAppendAcked,
        /// A failed change of a group takes effect.
        FailedChangeApplied,
        /// A refill reads from one after where the cursor stands.
        RefillOffByOne,
        /// A refill leaves out a message and does not say so.
        RefillSkipsOne,
        /// A user's sessions are noted after the snapshot is read.
        AttachAfterSnapshot,
        /// A group's owner is asked for its log's end, and the cursor does not look at it.
        AttachIgnoresHead,
        /// A session that goes does not say so to its groups.
        DetachForgotten,
        /// A session that goes does not say so to its user's owner.
        DetachUserForgotten,
        /// An outbox that is full drops a message and its cursor stays live.
        LiveAfterOverflow,
        /// What is dropped from an outbox does not move its cursor back.
        ShedForgetsMarks,
        /// The limit of the outbox is not looked at.
        OutboxUnlimited,
        /// Redelivery has no last attempt.
        RedeliveryEndless,
        /// Nothing is redelivered.
        RedeliveryNever,
        /// Repeats do not say that they are.
        RepeatUnmarked,
        /// A confirmation moves the cursor past what was sent.
        AckBeyondSent,
        /// Delivery state of a device that confirms moves with what was sent.
        DeliveredUnconfirmed,
        /// A session that leaves a group stays in its room.
        LeaveKeepsPlace,
        /// Homes are not told that a membership has ended.
        FormerMemberKept,
        /// A user's message goes to another user's sessions.
        WrongUser,
        /// The timer of a session that is gone is set again and again.
        TimerLeak,
        /// Watchers are not told that somebody has gone.
        PresenceUntold,
        /// Who is connected stays when their token is revoked.
        RevokedStays,
        /// Who is told that their token has run out stays.
        ExpiredStays,
        /// What retention has removed is passed over without a word.
        RetentionUntold,
        /// An operator's call that fails is not answered.
        CallUnanswered,
        /// Strangers are told who is online.
        StrangersTold,
        /// `sync_done` does not wait for the log.
        SyncDoneEarly,
        /// A walk over a room forgets one member where it pauses.
        WalkSkipsOne,
        /// A member who moves in the list behind a walk is forgotten by it.
        WalkMissesMoved,
        /// Walks of a room pile up.
        BacklogUnlimited,
        /// Requests that wait for a conversation pile up.
        WaitingUnlimited,
        // Wire.
        /// The header of a long frame names one byte too few.
        FrameLengthWrong,
        /// A recalled message is not marked as one.
        RecallUnmarked,
        /// The mask of a frame that comes in pieces begins anew with each of them.
        MaskPhaseLost,
        // Mesh.
        /// A parked shard is claimed and not rung.
        DoorbellLost,
        /// A full ring loses the next value.
        FullRingLosesOne,
        /// What waits for room overtakes what waited before.
        OverflowReordered,
        /// A shard that waits for room is not told of it.
        RoomUntold,
        // Store.
        /// Repeats are stored again.
        DedupeSkipped,
        /// Recalled content stays in the log.
        RecallKeepsContent,
        /// Hidden messages are shown.
        HiddenShown,
        /// Unread counts begin one early.
        UnreadOffByOne,
        /// Somebody who leaves keeps their row.
        RowKept,
        /// Delivery state of one device moves that of all.
        DeliveredForAll,
        // Disk.
        /// What uses of client ids it knew is gone with the process.
        DedupeLostInCrash,
        /// A crash keeps half of what was acknowledged last.
        CommitTorn,
        /// After a crash a `seq` is given again.
        SeqReused,
        /// Two writes change places.
        CommitReordered,
        /// A completion is delivered twice.
        CompletionTwice,
    }
}

listed! {
    /// A state that is reached now and then; a proof whose runs never reach it proves nothing about it.
    pub enum Reached {
        /// A walk over a room paused at the end of its slice.
        WalkPaused,
        /// A room's walks piled up and were dropped.
        BacklogDropped,
        /// A member moved in the list behind a walk.
        WalkMissedMoved,
        /// An outbox was full and its cursor began to lag.
        OutboxFull,
        /// A page came for a cursor that had moved meanwhile.
        PageStale,
        /// A page did not hold all there was.
        PageFull,
        /// A page was for a private conversation.
        PagePrivate,
        /// A page could not be read and is tried again.
        PageFailed,
        /// Something was sent again because it was not confirmed.
        Redelivered,
        /// A connection was closed because it confirmed nothing.
        GivenUp,
        /// A user became a member again before the former membership was over everywhere.
        Reattached,
        /// A session was detached from a membership that had ended.
        DetachedLate,
        /// A conversation was forgotten to make room.
        ConversationForgotten,
        /// A request waited for a conversation to be loaded or changed.
        RequestWaited,
        /// A request found too many waiting.
        WaitingFull,
        /// A notification is tried again later.
        NotificationLater,
        /// Somebody connected while their last visit was being written.
        FenceWaited,
        /// A request came between token and welcome.
        RequestEarly,
        /// A session was evicted for a newer one.
        SessionEvicted,
        /// A session was refused because its user had enough.
        SessionRefused,
        /// A message came between attaching and snapshot.
        NotedWhileOpening,
        /// A request repeated was known.
        DuplicateFound,
        /// Reading from a connection was held back.
        ReadingHeld,
        /// A ring had no room.
        RingFull,
        /// A shard read no sockets because its rings were full.
        Congested,
        /// A shard that waited for room was rung.
        RoomTold,
        /// `sync_done` was dropped with the messages before it.
        SyncDoneShed,
    }
}

/// Whether this fault is planted on this thread.
#[inline(always)]
#[must_use]
pub fn planted(fault: Planted) -> bool {
    #[cfg(any(test, feature = "planted-faults"))]
    return watch::PLANTED.get() == Some(fault);
    #[cfg(not(any(test, feature = "planted-faults")))]
    {
        let _ = fault;
        false
    }
}

/// Counts that a state was reached on this thread.
#[inline(always)]
pub fn reached(state: Reached) {
    #[cfg(any(test, feature = "planted-faults"))]
    watch::REACHED.with_borrow_mut(|counts| counts[state as usize] += 1);
    #[cfg(not(any(test, feature = "planted-faults")))]
    let _ = state;
}

#[cfg(any(test, feature = "planted-faults"))]
pub use watch::{plant, take_reached};

#[cfg(any(test, feature = "planted-faults"))]
mod watch {
    use std::cell::{Cell, RefCell};

    use super::{Planted, Reached};

    thread_local! {
        pub static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
        pub static REACHED: RefCell<[u64; Reached::ALL.len()]> = const { RefCell::new([0; Reached::ALL.len()]) };
    }

    /// Plants a fault on this thread, or none.
    pub fn plant(fault: Option<Planted>) {
        PLANTED.set(fault);
    }

    /// What was reached on this thread since the last time, by place in [`Reached::ALL`].
    pub fn take_reached() -> [u64; Reached::ALL.len()] {
        REACHED.replace([0; Reached::ALL.len()])
    }
}
