//! Owns the decision whether a shard must be woken. Never wakes by itself: whoever is told to ring does so with what it has
//! (`MSG_RING` between shards, an eventfd from other threads). Shared by all threads; parked and opened only by its shard.

use super::primitive::{Cell, Native, Platform};

/// One shard's doorbell.
///
/// | who | does | then |
/// |---|---|---|
/// | the shard | [`announce`](Doorbell::announce) | looks at every input again; sleeps only when all are empty |
/// | the shard, not or no longer asleep | [`open`](Doorbell::open) | works |
/// | a giver, once a turn | publishes values, [`fence`](Doorbell::fence) | for each target [`claim`](Doorbell::claim); true =
/// ring it |
///
/// A parked shard is rung by exactly one giver, a working one by nobody.
#[derive(Debug)]
#[repr(align(128))]
pub struct Doorbell<P: Platform = Native> {
    state: P::Cell,
}

impl<P: Platform> Default for Doorbell<P> {
    fn default() -> Doorbell<P> {
        Doorbell::new()
    }
}

impl<P: Platform> Doorbell<P> {
    /// The doorbell of a shard that works.
    pub fn new() -> Doorbell<P> {
        Doorbell { state: P::Cell::new(AWAKE) }
    }

    /// Says that the shard is about to sleep. All inputs must be looked at again after it and before sleeping.
    pub fn announce(&self) {
        self.state.store(PARKED);
        P::fence();
    }

    /// Says that the shard works again. True when it was rung meanwhile (the ring may still be on its way: a shard that did
    /// not sleep after all sees it later as a wake-up for nothing).
    pub fn open(&self) -> bool {
        self.state.swap(AWAKE) == RUNG
    }

    /// To be called once between publishing values and any number of [`claim`](Doorbell::claim)s.
    #[inline]
    pub fn fence() {
        P::fence();
    }

    /// True when the caller, and nobody else, must ring the shard now.
    #[inline]
    pub fn claim(&self) -> bool {
        self.state.load() == PARKED && self.state.replace(PARKED, RUNG)
    }

    /// True from [`announce`](Doorbell::announce) until it is rung or opened. For metrics and tests: stale at once.
    pub fn is_parked(&self) -> bool {
        self.state.load() == PARKED
    }
}

/// The shard works and will look at its inputs before it parks.
const AWAKE: u8 = 0;
/// The shard sleeps or is about to; nobody has rung yet.
const PARKED: u8 = 1;
/// Somebody has taken it on to wake the shard.
const RUNG: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU8, AtomicUsize, Ordering, fence};
    use loom::thread;

    #[derive(Debug)]
    struct Modelled;

    impl Platform for Modelled {
        type Cell = AtomicU8;

        fn fence() {
            fence(Ordering::SeqCst);
        }
    }

    impl Cell for AtomicU8 {
        fn new(value: u8) -> AtomicU8 {
            AtomicU8::new(value)
        }
        fn load(&self) -> u8 {
            AtomicU8::load(self, Ordering::Relaxed)
        }
        fn store(&self, value: u8) {
            AtomicU8::store(self, value, Ordering::Relaxed);
        }
        fn swap(&self, value: u8) -> u8 {
            AtomicU8::swap(self, value, Ordering::Relaxed)
        }
        fn replace(&self, current: u8, next: u8) -> bool {
            self.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        }
    }

    /// A giver's turn: publish, fence, claim. `rings` stands for what the kernel delivers.
    fn give(ring: &AtomicUsize, bell: &Doorbell<Modelled>, rings: &AtomicUsize) {
        ring.fetch_add(1, Ordering::Release);
        Doorbell::<Modelled>::fence();
        if bell.claim() {
            rings.fetch_add(1, Ordering::Release);
        }
    }

    #[test]
    fn no_value_is_left_with_its_receiver_asleep() {
        loom::model(|| {
            let bell = Arc::new(Doorbell::<Modelled>::new());
            let rings = Arc::new(AtomicUsize::new(0));
            let inputs = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
            let givers = inputs.clone().map(|input| {
                let (bell, rings) = (bell.clone(), rings.clone());
                thread::spawn(move || give(&input, &bell, &rings))
            });
            bell.announce();
            let seen: usize = inputs.iter().map(|input| input.load(Ordering::Acquire)).sum();
            let sleeps = seen == 0;
            for giver in givers {
                giver.join().unwrap();
            }
            let rung = rings.load(Ordering::Acquire);
            assert!(rung <= 1, "a parked shard is rung once");
            assert!(!sleeps || rung == 1, "asleep with a value waiting");
            assert_eq!(bell.open(), rung == 1);
        });
    }

    #[test]
    fn a_blocked_giver_does_not_sleep_through_the_room_made_for_it() {
        loom::model(|| {
            // The giver has overflow: it says so, then parks unless there is room. The taker makes room, then looks.
            let giver = Arc::new(Doorbell::<Modelled>::new());
            let blocked = Arc::new(AtomicU8::new(0));
            let room = Arc::new(AtomicUsize::new(0));
            let rings = Arc::new(AtomicUsize::new(0));
            let taker = {
                let (giver, blocked, room, rings) = (giver.clone(), blocked.clone(), room.clone(), rings.clone());
                thread::spawn(move || {
                    room.store(1, Ordering::Release);
                    Doorbell::<Modelled>::fence();
                    if Cell::load(&*blocked) != 0 && giver.claim() {
                        rings.fetch_add(1, Ordering::Release);
                    }
                })
            };
            Cell::store(&*blocked, 1);
            giver.announce();
            let sleeps = room.load(Ordering::Acquire) == 0;
            taker.join().unwrap();
            assert!(!sleeps || rings.load(Ordering::Acquire) == 1, "asleep although its values could move");
        });
    }

    #[test]
    fn a_working_shard_is_never_rung() {
        let bell = Doorbell::<Native>::new();
        assert!(!bell.claim());
        bell.announce();
        assert!(bell.is_parked() && bell.claim() && !bell.claim());
        assert!(bell.open() && !bell.open());
        assert!(!bell.claim());
    }
}
