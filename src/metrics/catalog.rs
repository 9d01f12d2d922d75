//! Owns the one list of every metric: its name, help, kind and labels. Never holds a value. Constant.

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    Gauge,
    Histogram,
}

macro_rules! catalog {
    ($($metric:ident = $name:literal $kind:ident [$($label:literal)*] $help:literal;)+) => {
        /// A metric that this server exports.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Metric { $(#[doc = $help] $metric,)+ }

        impl Metric {
            /// Every metric, in the order in which they are exported.
            pub const ALL: &'static [Metric] = &[$(Metric::$metric,)+];

            /// The exported name.
            pub fn name(self) -> &'static str {
                match self { $(Metric::$metric => $name,)+ }
            }

            pub fn kind(self) -> Kind {
                match self { $(Metric::$metric => Kind::$kind,)+ }
            }

            /// Names of its labels; the values of each are a closed set.
            pub fn labels(self) -> &'static [&'static str] {
                match self { $(Metric::$metric => &[$($label,)*],)+ }
            }

            /// One sentence, without the full stop, which the exporter adds.
            pub fn help(self) -> &'static str {
                match self { $(Metric::$metric => $help,)+ }
            }
        }
    };
}

catalog! {
    Connections = "corehub_connections" Gauge ["shard"] "Connections that are open now";
    ConnectionsOpened = "corehub_connections_opened_total" Counter [] "Connections that finished their handshake";
    ConnectionsClosed = "corehub_connections_closed_total" Counter ["reason"] "Connections that ended, by who or what ended them";
    ConnectionsRefused = "corehub_connections_refused_total" Counter [] "Connections refused during their handshake";
    ConnectionSeconds = "corehub_connection_seconds" Histogram [] "How long connections lasted";
    Sessions = "corehub_sessions" Gauge ["shard"] "Connections that are authenticated now";
    OnlineUsers = "corehub_online_users" Gauge [] "Users with at least one session";
    MessagesReceived = "corehub_messages_received_total" Counter ["type"] "Requests of clients, by type";
    MessagesDelivered = "corehub_messages_delivered_total" Counter [] "Messages handed to connections of their receivers";
    BytesReceived = "corehub_received_bytes_total" Counter [] "Bytes read from connections";
    BytesSent = "corehub_sent_bytes_total" Counter [] "Bytes written to connections";
    AckSeconds = "corehub_ack_seconds" Histogram [] "From the arrival of a message to its ack leaving";
    DeliverySeconds = "corehub_delivery_seconds" Histogram [] "From the arrival of a message to its delivery to a connection";
    Errors = "corehub_errors_total" Counter ["name"] "Error replies, by name";
    FaultsCaught = "corehub_faults_caught_total" Counter [] "Faults in one handler or connection that were contained";
    OutboxBytes = "corehub_outbox_bytes" Gauge [] "Bytes waiting to be sent to connections";
    EphemeralShed = "corehub_ephemeral_shed_total" Counter [] "Typing, presence and receipt frames dropped for slow readers";
    MeshMessages = "corehub_mesh_messages_total" Counter ["from" "to"] "Envelopes between shards";
    StoreDamaged = "corehub_store_damaged_total" Counter [] "Times a connection went without something damaged on disk";
    StoreCommitSeconds = "corehub_store_commit_seconds" Histogram [] "How long commits of the store took";
    StoreBatchMessages = "corehub_store_batch_messages" Histogram [] "Writes in one commit of the store";
    SearchLagMessages = "corehub_search_lag_messages" Gauge [] "Stored messages that the search index does not have yet";
    SearchRebuildConversations = "corehub_search_rebuild_conversations" Gauge [] "Conversations a new search index is to read";
    LaggingConnections = "corehub_lagging_connections" Gauge [] "Connections with a cursor that is being refilled from the log";
    TurnSeconds = "corehub_turn_seconds" Histogram ["shard"] "How long turns of a shard took, without the rest at their end";
    ResidentMemoryBytes = "process_resident_memory_bytes" Gauge [] "Memory of this process that is resident";
    OpenFds = "process_open_fds" Gauge [] "File descriptors that are open";
    CpuSeconds = "process_cpu_seconds_total" Counter [] "User and system CPU time spent";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CONTRACT, "Metrics": names and labels that dashboards rely on.
    const PROMISED: [(&str, &[&str]); 18] = [
        ("corehub_connections", &["shard"]),
        ("corehub_connections_opened_total", &[]),
        ("corehub_connections_closed_total", &["reason"]),
        ("corehub_connection_seconds", &[]),
        ("corehub_messages_received_total", &["type"]),
        ("corehub_messages_delivered_total", &[]),
        ("corehub_ack_seconds", &[]),
        ("corehub_delivery_seconds", &[]),
        ("corehub_errors_total", &["name"]),
        ("corehub_outbox_bytes", &[]),
        ("corehub_mesh_messages_total", &["from", "to"]),
        ("corehub_store_commit_seconds", &[]),
        ("corehub_store_batch_messages", &[]),
        ("corehub_lagging_connections", &[]),
        ("corehub_turn_seconds", &["shard"]),
        ("process_resident_memory_bytes", &[]),
        ("process_open_fds", &[]),
        ("process_cpu_seconds_total", &[]),
    ];

    #[test]
    fn every_promised_metric_is_in_the_catalogue() {
        for (name, labels) in PROMISED {
            let metric = Metric::ALL.iter().find(|metric| metric.name() == name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(metric.labels(), labels, "{name}");
        }
    }

    #[test]
    fn no_name_is_given_twice_and_none_lacks_help() {
        let mut names: Vec<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len());
        for metric in Metric::ALL {
            assert!(metric.help().len() > 10 && !metric.help().ends_with('.'), "{}", metric.name());
        }
    }

    #[test]
    fn names_say_what_kind_they_are() {
        for metric in Metric::ALL {
            let name = metric.name();
            assert_eq!(name.ends_with("_total"), metric.kind() == Kind::Counter, "{name}");
            if name.ends_with("_seconds") {
                assert_eq!(metric.kind(), Kind::Histogram, "{name}");
            }
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        }
    }
}
