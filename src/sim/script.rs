//! Owns what happens from outside in one run, drawn in advance from the seed: so that a run can be repeated with parts left
//! out. Never looks at the node.

/// One thing done from outside. Devices, users, groups are numbers, taken modulo how many there are.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Connect(usize),
    Close(usize),
    Tear(usize),
    Vanish(usize),
    StopReading(usize),
    GoOnReading(usize),
    SendToUser {
        device: usize,
        user: usize,
        loss_time_ms: Option<u64>,
    },
    SendToGroup {
        device: usize,
        group: usize,
    },
    /// The same device says an earlier message again.
    Repeat {
        device: usize,
        which: usize,
    },
    MarkRead {
        device: usize,
        which: usize,
    },
    Join {
        device: usize,
        group: usize,
    },
    Leave {
        device: usize,
        group: usize,
    },
    Create {
        device: usize,
        group: usize,
        user: usize,
    },
    Invite {
        device: usize,
        group: usize,
        user: usize,
    },
    Remove {
        device: usize,
        group: usize,
        user: usize,
    },
    Typing {
        device: usize,
        user: usize,
    },
    Recall {
        device: usize,
        which: usize,
    },
    Delete {
        device: usize,
        which: usize,
    },
    /// It confirms more than it has heard.
    ConfirmBeyond {
        device: usize,
        which: usize,
        by: u64,
    },
    /// A member is removed and invited in one breath, and connects meanwhile.
    Flicker {
        device: usize,
        group: usize,
        user: usize,
    },
    /// Many lists at once.
    AskForLists(usize),
    Sync {
        device: usize,
        everything: bool,
    },
    History {
        device: usize,
        group: usize,
    },
    Watch {
        device: usize,
        user: usize,
    },
    WatchGroup {
        device: usize,
        group: usize,
    },
    Ping(usize),
    Nonsense {
        device: usize,
        which: usize,
    },
    Garbage(usize),
    Kick(usize),
    Notify(usize),
    /// It connects, or shows a new token, which is good for so long.
    ConnectBriefly {
        device: usize,
        good_ms: u64,
    },
    Refresh {
        device: usize,
        good_ms: Option<u64>,
    },
    /// All of a user's tokens are revoked.
    Revoke(usize),
    /// Retention removes the oldest of a conversation.
    Age {
        which: usize,
        count: usize,
    },
    /// An operator writes for a user, to another or to a group, or notifies them; or says an earlier order again.
    Order {
        user: usize,
        to: usize,
        kind: Ordered,
    },
    /// An operator changes a group.
    Arrange {
        group: usize,
        user: usize,
        change: Arranged,
    },
    FailCommits(u32),
    FailReads(u32),
    Stall(u64),
    LimitStore(usize),
    HealStore,
    JumpClock(i64),
    /// A shard takes no turn for so long.
    StallShard {
        shard: usize,
        ms: u64,
    },
    /// The node is drained, stopped and started again.
    Restart,
    Crash,
}

/// What an operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    ToUser,
    ToGroup,
    Notification,
    Again,
}

/// What an operator does to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arranged {
    Add,
    Remove,
    Put,
    Delete,
}

/// An action and how long to wait before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub wait_ms: u64,
    pub action: Action,
}

/// How wild a run is.
#[derive(Clone, Copy, Debug)]
pub struct Wildness {
    pub faults: bool,
    pub crashes: bool,
}

/// Draws the steps of about `ms` milliseconds.
pub fn draw(random: &mut fastrand::Rng, ms: u64, wildness: Wildness) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut left = ms;
    // Some runs are crowded, some are sparse.
    let wait_max = [1, 5, 50][random.usize(..3)];
    while left > 0 {
        let wait_ms = if random.u16(..600) == 0 { random.u64(..8_000) } else { random.u64(..=wait_max) }.min(left);
        left -= wait_ms.max(1).min(left);
        steps.push(Step { wait_ms, action: action(random, wildness) });
    }
    steps
}

fn action(random: &mut fastrand::Rng, wildness: Wildness) -> Action {
    let (device, user, group, which) = (random.usize(..64), random.usize(..64), random.usize(..64), random.usize(..1_000));
    match random.u32(..1_000) {
        0..=119 => Action::Connect(device),
        120..=129 => Action::Close(device),
        130..=144 => Action::Tear(device),
        145..=154 => Action::Vanish(device),
        155..=179 => Action::StopReading(device),
        180..=219 => Action::GoOnReading(device),
        220..=399 => {
            let loss_time_ms = (random.u8(..10) == 0).then(|| random.u64(1..3_000));
            Action::SendToUser { device, user, loss_time_ms }
        }
        400..=599 => Action::SendToGroup { device, group },
        600..=629 => Action::Repeat { device, which },
        630..=649 => Action::MarkRead { device, which },
        650..=679 => Action::Join { device, group },
        680..=699 => Action::Leave { device, group },
        700..=714 => Action::Create { device, group, user },
        715..=754 => Action::Invite { device, group, user },
        755..=784 => Action::Remove { device, group, user },
        785..=799 => Action::Typing { device, user },
        800..=809 => Action::Recall { device, which },
        810..=819 => Action::Delete { device, which },
        820..=839 => Action::Sync { device, everything: random.bool() },
        840..=849 => Action::History { device, group },
        850..=859 => Action::Watch { device, user },
        860..=869 => Action::WatchGroup { device, group },
        870..=874 => Action::Ping(device),
        875..=889 => Action::Nonsense { device, which },
        890..=891 => Action::Garbage(device),
        892..=894 => Action::Kick(user),
        895..=904 => Action::Notify(user),
        905..=914 => Action::ConfirmBeyond { device, which, by: random.u64(1..6) },
        915..=917 => Action::AskForLists(device),
        918..=930 => Action::Flicker { device, group, user },
        931..=932 => Action::ConnectBriefly { device, good_ms: random.u64(1_000..4_000) },
        933..=935 => Action::Refresh { device, good_ms: random.bool().then(|| random.u64(1_000..4_000)) },
        936..=937 => Action::Revoke(user),
        938..=944 => Action::Age { which, count: random.usize(1..10) },
        945..=952 => {
            let kind = [Ordered::ToUser, Ordered::ToGroup, Ordered::Notification, Ordered::Again][random.usize(..4)];
            Action::Order { user, to: group, kind }
        }
        953..=956 => {
            let change = [Arranged::Add, Arranged::Remove, Arranged::Put][random.usize(..3)];
            Action::Arrange { group, user, change: if random.u8(..12) == 0 { Arranged::Delete } else { change } }
        }
        _ => fault(random, wildness).unwrap_or(Action::SendToGroup { device, group }),
    }
}

fn fault(random: &mut fastrand::Rng, wildness: Wildness) -> Option<Action> {
    if !wildness.faults {
        return None;
    }
    match random.u32(..68) {
        0..=9 => Some(Action::FailCommits(random.u32(1..4))),
        10..=24 => Some(Action::FailReads(random.u32(1..6))),
        25..=29 => Some(Action::Stall(random.u64(1..4_000))),
        30..=31 => Some(Action::LimitStore(random.usize(..20))),
        32..=39 => Some(Action::HealStore),
        40..=42 => Some(Action::JumpClock([-20_000, -1_000, 1_000, 20_000, 3_600_000][random.usize(..5)])),
        43..=48 => Some(Action::StallShard { shard: random.usize(..64), ms: random.u64(1..400) }),
        49..=50 if wildness.crashes => Some(Action::Crash),
        51 if wildness.crashes => Some(Action::Restart),
        _ => None,
    }
}
