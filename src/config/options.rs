//! Owns the table of options: the only place where a key, its type, default, bounds and meaning are written down. File keys,
//! environment variables, flags, the sample, `docs/CONFIG.md` and the `Config` struct all come from it.
//!
//! Never decides anything: relations between keys are in `check`, capacities in `limits`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::choice::{Algorithm, Durability, GroupHistory, LogFormat, LogLevel, Pin, PresenceVisible, SessionPolicy, StoreKind};
use super::fault::Fault;
use super::spec::{Bounds, Spec, Start, Status};
use super::value::{ByteSize, Raw, Secret, ShardCount, Value};

macro_rules! options {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $start:expr $(, $bounds:expr)?; $status:ident)*
        }
    )*) => {
        /// What the operator wrote, over the defaults. `Config::default()` is what a file without keys gives.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($(#[doc = $section_doc])+ pub $section: $Section,)*
            /// Started with `--dev`: rules about secrets are relaxed and any localhost origin is allowed.
            pub dev: bool,
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Section {
                $($(#[doc = $doc])+ pub $key: $type,)*
            }
        )*

        /// Every option, in the order of the documents.
        pub static OPTIONS: &[Spec] = &[$($(Spec {
            section: stringify!($section),
            key: stringify!($key),
            path: concat!(stringify!($section), ".", stringify!($key)),
            kind: <$type as Value>::KIND,
            start: $start,
            bounds: options!(@bounds $($bounds)?),
            status: Status::$status,
            doc: &[$($doc),+],
        },)*)*];

        /// Every section with its documentation, in the order of the documents.
        pub static SECTIONS: &[(&str, &[&str])] = &[$((stringify!($section), &[$($section_doc),+]),)*];

        impl Default for Config {
            fn default() -> Config {
                Config {
                    $($section: $Section { $($key: <$type as Value>::initial(&$start),)* },)*
                    dev: false,
                }
            }
        }

        impl Config {
            /// Reads `raw` into the option that `spec` describes.
            pub(super) fn assign(&mut self, spec: &Spec, raw: &Raw) -> Result<(), Fault> {
                match spec.path {
                    $($(concat!(stringify!($section), ".", stringify!($key)) => self.$section.$key = spec.read(raw)?,)*)*
                    other => unreachable!("{other} is not in the table its description came from"),
                }
                Ok(())
            }

            /// The value of an option as it is written in TOML; empty when unset. Secrets are blotted out.
            pub fn write(&self, spec: &Spec) -> String {
                match spec.path {
                    $($(concat!(stringify!($section), ".", stringify!($key)) => self.$section.$key.write(),)*)*
                    other => unreachable!("{other} is not in the table its description came from"),
                }
            }

            /// Options whose values differ, for a reload: those that are not [`Status::Reloadable`] need a restart.
            pub fn changes(&self, new: &Config) -> Vec<&'static Spec> {
                let differs = [$($(self.$section.$key != new.$section.$key,)*)*];
                OPTIONS.iter().zip(differs).filter_map(|(spec, differs)| differs.then_some(spec)).collect()
            }
        }
    };
    (@bounds) => { None };
    (@bounds $bounds:expr) => { Some($bounds) };
}

// Each option: documentation, name, type, default (or `unset` with an example), bounds; when a new value takes effect.
options! {
    /// Where clients and operators connect.
    listen: Listen {
        /// Address for clients: `/ws`, `/health`, `/stats`.
        client: SocketAddr = Start::Default("127.0.0.1:8080"); Restart
        /// Address for operators and other servers: REST, metrics, console.
        admin: SocketAddr = Start::Default("127.0.0.1:8081"); Restart
        /// Web pages that may connect, each an exact origin `scheme://host[:port]`. Clients that send no `Origin` are not
        /// browsers and always may. `--dev` adds every localhost origin.
        origins: Vec<String> = Start::Default(""); Restart
        /// Connections that the kernel holds until they are accepted, per listener; `net.core.somaxconn` caps it.
        backlog: u32 = Start::Default("4096"), between(16, 65_535); Restart
        /// From the TCP connection to the end of the HTTP upgrade.
        handshake_timeout: Duration = Start::Default("10s"), between(100 * MILLISECOND, 5 * MINUTE); Restart
        /// Handshakes a shard finishes per turn, so that a storm of new clients leaves room for live traffic.
        handshakes_per_turn: u32 = Start::Default("64"), between(1, 4_096); Restart
    }

    /// One shard is one thread with its share of clients, users and groups.
    shards: Shards {
        /// Number of shards; `auto`: one per core.
        count: ShardCount = Start::Default("auto"), between(1, 256); Restart
        /// Bind each shard to a core; `auto`: when there are no more shards than cores.
        pin: Pin = Start::Default("auto"); Restart
        /// How long an idle shard looks for work before it sleeps. Costs CPU, saves microseconds.
        spin: Duration = Start::Default("0"), between(0, 10 * MILLISECOND); Restart
        /// How long frames for one connection may gather under load, at most; an idle shard never waits.
        flush_delay: Duration = Start::Default("0"), between(0, 20 * MILLISECOND); Unsupported
        /// Submission entries of a shard's io_uring; rounded up to a power of two.
        ring_entries: u32 = Start::Default("1024"), between(64, 32_768); Restart
        /// Receive buffers of a shard, shared by its connections; rounded up to a power of two.
        receive_buffers: u32 = Start::Default("1024"), between(16, 32_768); Restart
        /// Size of one receive buffer.
        receive_buffer_bytes: ByteSize = Start::Default("4KiB"), between(512, MIB); Restart
        /// Envelopes that may wait from one shard to another; rounded up to a power of two. Beyond it the sender keeps them
        /// and stops reading from its sockets.
        mesh_capacity: u32 = Start::Default("16384"), between(256, 1 << 20); Restart
    }

    /// Who may connect.
    auth: Auth {
        /// Key of HS256 tokens: the bytes of this text, at least 32. Make one with `openssl rand -hex 32`.
        hmac_secret: Option<Secret> = Start::Unset("\"output of: openssl rand -hex 32\""); Restart
        /// Signatures that are accepted. RS256, ES256 and EdDSA need `auth.public_key_file` or `auth.jwks`.
        algorithms: Vec<Algorithm> = Start::Default("HS256"); Restart
        /// PEM file with the public key for RS256, ES256 or EdDSA.
        public_key_file: Option<PathBuf> = Start::Unset("\"/etc/corehub/public.pem\""); Restart
        /// Public keys as an issuer publishes them (JWKS): a file, which is read again when it changes, or an `https` URL,
        /// which is asked every 10 minutes, and once a minute at most when a token names an unknown key. The last good set
        /// stays in use.
        jwks: Option<String> = Start::Unset("\"https://id.example.com/.well-known/jwks.json\""); Restart
        /// A token's `aud` must name one of these; empty: not checked.
        audience: Vec<String> = Start::Default(""); Restart
        /// A token's `iss` must be this; unset: not checked.
        issuer: Option<String> = Start::Unset("\"https://id.example.com\""); Restart
        /// Refuse tokens without `exp`.
        require_exp: bool = Start::Default("true"); Restart
        /// Take the token from `?token=` too. Query strings end up in the logs of proxies.
        query_token: bool = Start::Default("false"); Restart
        /// From the upgrade to a good `auth` message.
        timeout: Duration = Start::Default("10s"), between(100 * MILLISECOND, 10 * MINUTE); Restart
        /// The longest life of a token that is issued. A revocation is kept so long; a token that lives longer would come back.
        token_life: Duration = Start::Default("30d"), between(MINUTE, 3_650 * DAY); Restart
        /// From a token's end to the close of its connection, so that the client can refresh.
        expiry_grace: Duration = Start::Default("30s"), between(0, HOUR); Restart
    }

    /// Connections of one user.
    sessions: Sessions {
        /// At most this many at once; 1 is single sign-on.
        per_user: u32 = Start::Default("5"), between(1, 10_000); Restart
        /// What to do with one too many: close the oldest, refuse the new one, or replace the one of the same device.
        policy: SessionPolicy = Start::Default("evict_oldest"); Restart
    }

    /// How dead connections are found.
    heartbeat: Heartbeat {
        /// The server pings a connection this often.
        interval: Duration = Start::Default("54s"), between(SECOND, HOUR); Restart
        /// A connection that gives no sign of life for this long after a ping is closed with 4201.
        timeout: Duration = Start::Default("60s"), between(SECOND, 2 * HOUR); Restart
        /// How long a connection that is being closed has to take its last frames and to answer. A slow reader is not closed: it
        /// is read to from the log.
        write_timeout: Duration = Start::Default("10s"), between(100 * MILLISECOND, 10 * MINUTE); Restart
    }

    /// Sizes, rates and counts that nobody may exceed. A rate of 0 is no limit.
    limits: LimitOptions {
        /// Connections of the process; one more gets HTTP 503.
        connections: u32 = Start::Default("100000"), between(1, 16_000_000); Restart
        /// Connections from one address (IPv6: from one /64); one more gets HTTP 429. 0: no limit, which suits a server behind
        /// a proxy.
        connections_per_ip: u32 = Start::Default("0"), between(0, 16_000_000); Restart
        /// New connections of the process per second; one more gets HTTP 503 with `Retry-After`.
        connects_per_second: u32 = Start::Default("5000"), between(0, 1_000_000); Restart
        /// Connections that have not authenticated yet, so that they cannot crowd out users.
        unauthenticated_connections: u32 = Start::Default("20000"), between(1, 16_000_000); Restart
        /// Largest message before authentication.
        unauthenticated_bytes: ByteSize = Start::Default("8KiB"), between(KIB, 64 * KIB); Restart
        /// Largest message, the envelope counted; a larger one closes 1009.
        message_bytes: ByteSize = Start::Default("512KiB"), between(KIB, 64 * MIB); Restart
        /// Largest `content`, answered 413 beyond; unset: as `limits.message_bytes`.
        content_bytes: Option<ByteSize> = Start::Unset("\"64KiB\""), between(1, 64 * MIB); Restart
        /// Frames of one fragmented message; one more closes 1009.
        fragments: u32 = Start::Default("1024"), between(1, 1 << 20); Restart
        /// From the first to the last byte of a message.
        assembly_timeout: Duration = Start::Default("30s"), between(SECOND, HOUR); Restart
        /// Bytes that may wait for one connection; beyond it messages are read again from the log when the peer has caught up.
        outbox_bytes: ByteSize = Start::Default("256KiB"), between(4 * KIB, 64 * MIB); Restart
        /// Messages from one connection per second; one more is answered 429.
        messages_per_second: u32 = Start::Default("1000"), between(0, 1_000_000); Restart
        /// Messages from one user per second, all connections together.
        user_messages_per_second: u32 = Start::Default("2000"), between(0, 1_000_000); Restart
        /// Errors of one connection per minute; one more closes 4101.
        errors_per_minute: u32 = Start::Default("60"), between(0, 1_000_000); Restart
        /// Members of one group.
        group_members: u32 = Start::Default("200000"), between(2, 10_000_000); Restart
        /// Groups of one user.
        groups_per_user: u32 = Start::Default("5000"), between(1, 1_000_000); Restart
        /// Conversations a shard keeps at hand without anyone online in them.
        conversations_cached: u32 = Start::Default("100000"), between(100, 100_000_000); Restart
        /// Requests of one conversation that may wait for it to be loaded; one more is answered 503.
        loading_requests: u32 = Start::Default("1024"), between(1, 1 << 20); Restart
    }

    /// What happens to messages over time.
    messages: Messages {
        /// A message may be recalled by its sender for this long; 0: never.
        recall_window: Duration = Start::Default("120s"), between(0, 365 * DAY); Restart
        /// Messages are removed after this long, at most 10,000 a second; 0: never. A conversation keeps counting where it was.
        retention: Duration = Start::Default("0"), between(0, 36_500 * DAY); Reloadable
        /// A message sent again with the same `message_id` within this time is stored once.
        dedupe_window: Duration = Start::Default("24h"), between(MINUTE, 30 * DAY); Restart
        /// Users per second whom an announcement is written to, in the background.
        announcements_per_second: u32 = Start::Default("2000"), between(1, 100_000); Restart
        /// A device never seen before gets what no device of its user has had, and all that was written since this long ago;
        /// 0: only the first.
        new_device_window: Duration = Start::Default("0"), between(0, 365 * DAY); Restart
    }

    /// Delivery to clients that acknowledge (`acks: true`).
    delivery: Delivery {
        /// A message without `recv_ack` for this long is sent again.
        ack_timeout: Duration = Start::Default("10s"), between(100 * MILLISECOND, HOUR); Restart
        /// After this many times the connection is closed with 4201 and the message waits for the next one.
        attempts: u32 = Start::Default("3"), between(1, 100); Restart
    }

    /// Groups.
    groups: Groups {
        /// What a new member may read: from the join on, or all.
        history: GroupHistory = Start::Default("join"); Restart
        /// Groups above this many members send no read receipts.
        receipts_max: u32 = Start::Default("200"), between(0, 1_000_000); Restart
    }

    /// Who is online.
    presence: Presence {
        /// Who sees it: everyone, or people who share a conversation.
        visible: PresenceVisible = Start::Default("everyone"); Restart
        /// Users one connection may subscribe to.
        watches_max: u32 = Start::Default("1000"), between(0, 1_000_000); Restart
    }

    /// Where messages are kept.
    store: Store {
        /// `embedded` keeps them in the data folder, `memory` loses them at exit.
        kind: StoreKind = Start::Default(STORE_KIND_DEFAULT); Restart
        /// `commit`: a message is acknowledged when it is on disk. `memory`: at once, and a crash may lose the last moments.
        durability: Durability = Start::Default("commit"); Restart
        /// The data folder; it belongs to one process.
        path: PathBuf = Start::Default("corehub-data"); Restart
        /// Seals message bodies with AES-256-GCM under the first key of this file: lines of `ID KEY` that `corehub store key`
        /// prints. All its keys open. Unset: bodies are kept as they are.
        encryption_key_file: Option<PathBuf> = Start::Unset("\"/etc/corehub/store.keys\""); Restart
        /// Requests of one shard that may wait for the store; one more is answered 503 with `retry_after_ms`.
        queue: u32 = Start::Default("65536"), between(64, 1 << 22); Restart
        /// Threads that read.
        readers: u32 = Start::Default("2"), between(1, 64); Restart
        /// Messages of one commit.
        batch_messages: u32 = Start::Default("512"), between(1, 65_536); Restart
        /// Memory for what was read from the data folder.
        cache_bytes: ByteSize = Start::Default("32MiB"), between(MIB, 1_024 * 1_024 * MIB); Restart
        /// What was written gathers in so much memory before it is moved to tables; four times as much when the disk cannot
        /// follow. More of it means fewer and larger writes, and a longer start after a crash.
        write_buffer_bytes: ByteSize = Start::Default("32MiB"), between(MIB, 16 * 1_024 * MIB); Restart
        /// Keeps an index of all texts in the data folder, from which `search` answers. Without it `search` looks through the
        /// conversations, up to 100,000 messages for one answer. For `embedded` only, and not with `store.encryption_key_file`.
        search: bool = Start::Default("true"); Restart
        /// Memory in which new parts of the index are made; more makes fewer and larger parts.
        search_memory_bytes: ByteSize = Start::Default("32MiB"), between(16 * MIB, 1024 * MIB); Restart
    }

    /// The process.
    server: Server {
        /// Name of this node, as clients see it.
        node_id: String = Start::Default("node-1"); Restart
        /// From the first SIGTERM or SIGINT to the close of the last connection.
        drain_deadline: Duration = Start::Default("30s"), between(0, HOUR); Restart
    }

    /// Operators and other servers.
    admin: Admin {
        /// What `X-API-Key` must be, at least 32 bytes. Unset: everything that needs it is refused.
        api_key: Option<Secret> = Start::Unset("\"output of: openssl rand -hex 32\""); Restart
        /// Web pages that may use the REST API, each an exact origin.
        cors_origins: Vec<String> = Start::Default(""); Restart
    }

    /// Logs, on standard error.
    log: Log {
        /// For people or for programs.
        format: LogFormat = Start::Default("text"); Restart
        /// From `error` (least) to `trace` (most).
        level: LogLevel = Start::Default("info"); Reloadable
    }
}

const fn between(least: u64, most: u64) -> Bounds {
    Bounds { least, most }
}

/// What keeps messages when nothing is said.
pub const STORE_KIND_DEFAULT: &str = "embedded";

/// Durations are bounded in microseconds.
const MILLISECOND: u64 = 1_000;
const SECOND: u64 = 1_000 * MILLISECOND;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
