//! Owns the options of every scenario, as a user gives them. Never acts on one.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::process::Cpus;

/// Options of all scenarios.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Start a server for this run on free ports, with an own secret, a temporary data folder and raised limits; stop it after
    #[arg(long)]
    pub spawn: bool,
    /// Client address of the server under test, without --spawn
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub server: SocketAddr,
    /// Path of the WebSocket endpoint
    #[arg(long, value_name = "PATH", default_value = "/ws")]
    pub path: String,
    /// Process of the server under test, without --spawn; processor time and memory are read from /proc
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// The server's auth.hmac_secret, with which the clients' tokens are signed
    #[arg(long, value_name = "TEXT")]
    pub secret: Option<String>,
    /// Data folder of the server: its `dev-secret` signs the tokens; with --spawn the folder to use and keep
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Shards of a spawned server
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub shards: usize,
    /// store.kind of a spawned server: memory or embedded [default: memory; embedded in `stalled`]
    #[arg(long, value_name = "KIND")]
    pub store: Option<String>,
    /// One more argument for a spawned server; repeat for more
    #[arg(long = "server-args", value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub server_args: Vec<String>,
    /// Processors of the spawned server and of the bare loops: 0, 0-3, 0,2 or none [default: 0 with one shard, else none]
    #[arg(long, value_name = "LIST")]
    pub server_cpu: Option<Cpus>,
    /// Processors of the generator [default: the last one with one shard, else none]
    #[arg(long, value_name = "LIST")]
    pub client_cpu: Option<Cpus>,
    /// Generator threads
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub threads: usize,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Exit with 1 when a check fails or no verdict is possible
    #[arg(long)]
    pub assert: bool,
}

/// How often and how long is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Timing {
    /// Measured seconds of one round
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub seconds: f64,
    /// Seconds of load before measuring begins, in each round
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub warmup: f64,
    /// Rounds; figures are medians over them
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub rounds: usize,
    /// After each round one of a bare loop that does the least possible work with the same bytes; ratios are told
    #[arg(long)]
    pub with_ceiling: bool,
}

/// `bench idle`
#[derive(Clone, Debug, clap::Args)]
pub struct IdleOptions {
    #[command(flatten)]
    pub common: Common,
    /// Authenticated connections at the end
    #[arg(long, value_name = "COUNT", default_value_t = 15_000)]
    pub connections: usize,
    /// Connections of the first step; memory is told as the slope between the two
    #[arg(long, value_name = "COUNT", default_value_t = 5_000)]
    pub baseline: usize,
    /// Members of the one group each connection is in; 0: no groups
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub group_size: usize,
    /// Seconds of silence over which idle processor time is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub seconds: f64,
    /// Seconds to settle before memory is read
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pub settle: f64,
}

/// `bench fanout`
#[derive(Clone, Debug, clap::Args)]
pub struct FanoutOptions {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub timing: Timing,
    /// Groups; in one group the first member sends, in several random members do
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub groups: usize,
    /// Members of each group
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    pub group_size: usize,
    /// Messages sent per second, over all groups
    #[arg(long, value_name = "RATE", default_value_t = 100.0)]
    pub rate: f64,
    /// Bytes of content of a message
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub size: usize,
}

/// `bench private`
#[derive(Clone, Debug, clap::Args)]
pub struct PrivateOptions {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub timing: Timing,
    /// Connections, in pairs that write to each other
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    pub connections: usize,
    /// Closed loop: messages each client keeps on their way
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub outstanding: u32,
    /// Open loop instead: messages per second over all clients
    #[arg(long, value_name = "RATE")]
    pub rate: Option<f64>,
    /// Bytes of content of a message
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub size: usize,
}

/// `bench stalled`
#[derive(Clone, Debug, clap::Args)]
pub struct StalledOptions {
    #[command(flatten)]
    pub common: Common,
    /// Members of the group, the sender and the one that stalls included
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub members: usize,
    /// Messages per second
    #[arg(long, value_name = "RATE", default_value_t = 1_000.0)]
    pub rate: f64,
    /// Bytes of content of a message
    #[arg(long, value_name = "BYTES", default_value_t = 1_024)]
    pub size: usize,
    /// Seconds for which the member reads nothing; windows without a stall last as long
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub stall: f64,
    /// Seconds of load before measuring begins, in each window
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub warmup: f64,
    /// Pairs of windows, without and with a stall
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub rounds: usize,
    /// Receive buffer of the stalled member
    #[arg(long, value_name = "BYTES", default_value_t = 4_096)]
    pub receive_buffer: usize,
    /// Seconds within which it must have caught up
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub catch_up: f64,
}

/// `bench durable`
#[derive(Clone, Debug, clap::Args)]
pub struct DurableOptions {
    #[command(flatten)]
    pub common: Common,
    /// Connections, in pairs that write to each other
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    pub connections: usize,
    /// Messages each client keeps on their way while saturation is sought
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub outstanding: u32,
    /// Bytes of content of a message
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub size: usize,
    /// Rate of the second half of the run [default: half of what saturation was]
    #[arg(long, value_name = "RATE")]
    pub rate: Option<f64>,
    /// Measured seconds of one round
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub seconds: f64,
    /// Seconds of load before measuring begins, in each round
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub warmup: f64,
    /// Rounds; figures are medians over them
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub rounds: usize,
}

/// `bench behind`
#[derive(Clone, Debug, clap::Args)]
pub struct BehindOptions {
    #[command(flatten)]
    pub common: Common,
    /// Messages the device is behind
    #[arg(long, value_name = "COUNT", default_value_t = 50_000)]
    pub messages: usize,
    /// Conversations over which they are spread
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub conversations: usize,
    /// Pace at which the device reads, in bits per second
    #[arg(long, value_name = "BITS", default_value_t = 1_000_000.0)]
    pub pace: f64,
    /// Receive buffer of the device
    #[arg(long, value_name = "BYTES", default_value_t = 4_096)]
    pub receive_buffer: usize,
    /// The device confirms what it gets
    #[arg(long)]
    pub acks: bool,
    /// Messages per second to the device meanwhile
    #[arg(long, value_name = "RATE", default_value_t = 20.0)]
    pub live: f64,
    /// Other connections, in pairs that write to each other
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    pub others: usize,
    /// Messages per second among the others
    #[arg(long, value_name = "RATE", default_value_t = 2_000.0)]
    pub rate: f64,
    /// Bytes of content of a message
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub size: usize,
    /// Seconds of one window of the others' latency
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds within which the device must have everything
    #[arg(long, value_name = "SECONDS", default_value_t = 240.0)]
    pub catch_up: f64,
}

/// `bench history`
#[derive(Clone, Debug, clap::Args)]
pub struct HistoryOptions {
    #[command(flatten)]
    pub common: Common,
    /// Messages of the conversation
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    pub messages: u64,
    /// Messages of a page
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub limit: u32,
    /// Pages asked for in each place, one after the other
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    pub requests: u64,
    /// Searches of each kind
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub searches: u64,
}

/// `bench startup`
#[derive(Clone, Debug, clap::Args)]
pub struct StartupOptions {
    #[command(flatten)]
    pub common: Common,
    /// Messages in the folder
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    pub messages: u64,
    /// Conversations over which they are spread
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    pub conversations: u64,
    /// Conversations of the one user who has many
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    pub busy_user: u64,
    /// Starts of each kind
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub rounds: usize,
}

/// `bench groups`
#[derive(Clone, Debug, clap::Args)]
pub struct GroupsOptions {
    #[command(flatten)]
    pub common: Common,
    /// Groups of the usual size
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub groups: usize,
    /// Members of each of them
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub group_size: usize,
    /// Members of the large group
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    pub large: usize,
    /// Messages of one round, to each kind of group
    #[arg(long, value_name = "COUNT", default_value_t = 20_000)]
    pub messages: usize,
    /// Bytes of content of a message
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub size: usize,
    /// Rounds; figures are medians over them
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub rounds: usize,
}
