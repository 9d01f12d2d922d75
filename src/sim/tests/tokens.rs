//! Stories of tokens that run out while the wall clock is set: their end follows it, within one heartbeat, and never before it.

use serde_json::json;

use super::{LineId, Plan, World, on_all_shards_with};
use crate::sim::node::EPOCH_MS;

#[test]
fn a_token_shown_while_the_clock_stood_back_ends_when_it_is_set_right() {
    on_all_shards_with(plain, |mut world| {
        world.node.jump_clock(-20_000);
        let ann = world.enter(15_000);
        world.node.jump_clock(20_000);
        world.node.run_ms(INTERVAL_MS + LATE_MS);
        assert_eq!(told(&world, ann), 1, "told with the next beat");
        assert!(!world.node.line(ann).is_lost(), "and given time to refresh");
        world.ends_after_the_grace(ann);
    });
}

#[test]
fn a_clock_set_forward_ends_tokens_within_a_heartbeat_whatever_was_heard() {
    on_all_shards_with(plain, |mut world| {
        let (silent, lively) = (world.enter(600_000), world.enter(600_000));
        let stays = world.enter(7_200_000);
        world.node.set_answering(silent, false);
        // At whatever point of the interval, also while an answer to a ping is waited for.
        let ms = 1 + world.connected as u64 * 997 % (2 * INTERVAL_MS);
        world.node.run_ms(ms);
        world.node.jump_clock(3_600_000);
        for _ in 0..(INTERVAL_MS + LATE_MS) / 100 {
            world.node.ping(lively);
            world.node.run_ms(100);
        }
        assert_eq!([silent, lively, stays].map(|line| told(&world, line)), [1, 1, 0]);
        world.node.run_ms(GRACE_MS + LATE_MS);
        assert_eq!(world.node.line(lively).close_code(), Some(4204));
        assert_eq!(world.node.line(silent).close_code(), Some(4204));
        assert!(!world.node.line(stays).is_lost());
        world.end();
    });
}

#[test]
fn a_clock_set_back_ends_no_token_early() {
    on_all_shards_with(plain, |mut world| {
        let ann = world.enter(10_000);
        world.node.jump_clock(-30_000);
        let shown_ms = world.node.wall().0;
        world.node.run_ms(39_000);
        assert!(world.node.wall().0 < shown_ms + 40_000);
        assert_eq!((told(&world, ann), world.node.line(ann).is_lost()), (0, false));
        world.node.run_ms(1_000 + LATE_MS);
        assert_eq!(told(&world, ann), 1, "but at its end without delay");
        world.ends_after_the_grace(ann);
    });
}

#[test]
fn a_token_that_is_good_again_within_its_grace_is_told_and_given_it_anew() {
    on_all_shards_with(plain, |mut world| {
        let ann = world.enter(10_000);
        world.node.run_ms(10_000 + LATE_MS);
        assert_eq!(told(&world, ann), 1);
        world.node.jump_clock(-20_000);
        world.node.run_ms(19_000);
        assert_eq!((told(&world, ann), world.node.line(ann).is_lost()), (1, false), "good for a second more");
        world.node.run_ms(1_000 + LATE_MS);
        assert_eq!((told(&world, ann), world.node.line(ann).is_lost()), (2, false));
        let token = world.node.token_until("ann", world.node.wall().0 + 10_000);
        assert_eq!(world.ask(ann, "refresh", json!({"token": token}))["type"], "auth_success");
        world.node.run_ms(GRACE_MS + LATE_MS);
        assert!(!world.node.line(ann).is_lost(), "a new token was shown in time");
        world.node.jump_clock(60_000);
        world.node.run_ms(INTERVAL_MS + LATE_MS);
        assert_eq!(told(&world, ann), 3, "which follows the clock as the first one did");
        world.ends_after_the_grace(ann);
    });
}

impl World {
    /// Ann authenticates with a token that is good for so long by the present wall clock.
    fn enter(&mut self, good_ms: u64) -> LineId {
        let whole_ms = self.node.wall().0.div_ceil(1_000) * 1_000;
        assert!(whole_ms > EPOCH_MS - 1_000_000);
        self.node.run_ms(whole_ms - self.node.wall().0);
        let token = self.node.token_until("ann", whole_ms + good_ms);
        let line = self.node.connect(self.connected % self.node.shards());
        self.connected += 1;
        self.node.say(line, &json!({"type": "auth", "message_id": "auth", "data": {"token": token}}));
        self.node.run_ms(100);
        assert_eq!(self.kinds(line)[..1], ["auth_success"], "{:?}", self.node.line(line).heard);
        line
    }

    /// Whoever was just told that their token has run out is closed for it, and all is well otherwise.
    fn ends_after_the_grace(mut self, line: LineId) {
        self.node.run_ms(GRACE_MS + LATE_MS);
        assert_eq!(self.node.line(line).close_code(), Some(4204));
        self.node.run_ms(3_000);
        self.end();
    }
}

/// How often a client was told that its token has run out.
fn told(world: &World, line: LineId) -> usize {
    world.of_kind(line, "error").iter().filter(|fault| fault["name"] == "TOKEN_EXPIRED").count()
}

/// Pings stay unanswered for much longer than it takes to send the next one.
fn plain(plan: &mut Plan) {
    plan.settings.heartbeat_interval_ms = INTERVAL_MS;
    plan.settings.heartbeat_timeout_ms = 5 * INTERVAL_MS;
    plan.settings.expiry_grace_ms = GRACE_MS;
}

const INTERVAL_MS: u64 = 4_000;
const GRACE_MS: u64 = 2_000;
/// A tick of the wheel, a turn, and the way to the client.
const LATE_MS: u64 = 200;
