//! Owns one shard's bounded queue of what other threads ask of it (operators, the store's repair, tests). Never waits: full is
//! an answer. [`Inbox`] lives on the shard, [`InboxSender`] on any thread.

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::Waker;

/// The shard's end.
#[derive(Debug)]
pub struct Inbox<T> {
    receiver: Receiver<T>,
    sender: InboxSender<T>,
}

impl<T> Inbox<T> {
    /// An inbox for at most `capacity` values, whose senders wake the shard through `waker`.
    pub fn new(capacity: usize, waker: Waker) -> Inbox<T> {
        let (sender, receiver) = crossbeam_channel::bounded(capacity);
        Inbox { receiver, sender: InboxSender { sender, waker } }
    }

    /// Another sending end.
    pub fn sender(&self) -> InboxSender<T> {
        self.sender.clone()
    }

    /// Takes at most `max` values in the order in which they came; returns how many.
    pub fn drain(&self, max: usize, sink: &mut impl FnMut(T)) -> usize {
        self.receiver.try_iter().take(max).map(sink).count()
    }

    /// Values that wait now: at most the capacity.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// To be looked at after announcing to park.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

/// A sending end.
#[derive(Debug)]
pub struct InboxSender<T> {
    sender: Sender<T>,
    waker: Waker,
}

impl<T> InboxSender<T> {
    /// Gives a value to the shard and wakes it. Full or gone: the value comes back and nothing happens; the caller answers
    /// `OVERLOADED`.
    pub fn try_send(&self, value: T) -> Result<(), T> {
        match self.sender.try_send(value) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(value) | TrySendError::Disconnected(value)) => Err(value),
        }
    }
}

impl<T> Clone for InboxSender<T> {
    fn clone(&self) -> InboxSender<T> {
        InboxSender { sender: self.sender.clone(), waker: self.waker.clone() }
    }
}
