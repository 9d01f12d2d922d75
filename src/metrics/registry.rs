//! Owns the last published copy of everybody's counters. Never makes a publisher wait: when control is reading a copy, the
//! publisher keeps the old one and comes again. Shared; written by shards and the store, read by control.

use std::sync::{Mutex, MutexGuard, TryLockError};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry as Exporter;

use super::render::Snapshot;
use super::{Histogram, ShardMetrics};

/// What the store counts.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    pub commit_seconds: Histogram,
    /// Writes in one commit.
    pub batch_messages: Histogram,
    /// Stored and not in the search index yet.
    pub search_lag_messages: u64,
    /// Still to be read by a search index that is made anew.
    pub search_rebuild_conversations: u64,
}

impl Default for StoreMetrics {
    fn default() -> StoreMetrics {
        StoreMetrics {
            commit_seconds: Histogram::latency(),
            batch_messages: Histogram::items(),
            search_lag_messages: 0,
            search_rebuild_conversations: 0,
        }
    }
}

/// What the operating system says about this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessSample {
    pub resident_memory_bytes: u64,
    pub open_fds: u64,
    pub cpu_seconds: f64,
}

/// Sums for `/stats`, as of the last copies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub connections: u64,
    pub sessions: u64,
    pub online_users: u64,
    pub messages_received: u64,
    pub messages_delivered: u64,
    /// Median and 99th percentile since the start, in seconds.
    pub ack_seconds: (f64, f64),
    pub shards: Vec<ShardSummary>,
}

/// One shard's part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSummary {
    pub connections: u64,
    pub sessions: u64,
    pub online_users: u64,
    pub lagging: u64,
    pub outbox_bytes: u64,
}

/// The place where counters meet.
#[derive(Debug)]
pub struct Registry {
    shards: Vec<Mutex<ShardMetrics>>,
    store: Mutex<StoreMetrics>,
    process: Mutex<ProcessSample>,
}

impl Registry {
    /// A place for `shards` shards, everything at 0.
    pub fn new(shards: usize) -> Registry {
        Registry {
            shards: (0..shards).map(|_| Mutex::new(ShardMetrics::new(shards))).collect(),
            store: Mutex::default(),
            process: Mutex::default(),
        }
    }

    /// Leaves a copy of a shard's counters, about 90 KB, on the shard's thread. False when control was just reading the last
    /// one: the copy stays as it was, try again in the next interval. Never blocks.
    ///
    /// # Panics
    /// When `shard` is not below the number given to [`Registry::new`].
    pub fn publish(&self, shard: usize, metrics: &ShardMetrics) -> bool {
        replace(&self.shards[shard], metrics)
    }

    /// Leaves a copy of the store's counters; as [`Registry::publish`].
    pub fn publish_store(&self, metrics: &StoreMetrics) -> bool {
        replace(&self.store, metrics)
    }

    /// What the operating system said last.
    pub fn set_process(&self, sample: ProcessSample) {
        *locked(&self.process) = sample;
    }

    /// Everything in the OpenMetrics text format. For control: waits for a publisher, never longer than it takes to copy.
    pub fn render(&self) -> String {
        let mut exporter = Exporter::default();
        exporter.register_collector(Box::new(self.snapshot()));
        let mut text = String::with_capacity(16 << 10);
        encode(&mut text, &exporter).expect("writing to a String does not fail");
        text
    }

    /// Sums for `/stats`.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        let mut acks = Histogram::latency();
        for slot in &self.shards {
            let shard = locked(slot);
            summary.connections += shard.connections;
            summary.sessions += shard.sessions;
            summary.online_users += shard.online_users;
            summary.messages_received += shard.messages_received.iter().sum::<u64>();
            summary.messages_delivered += shard.messages_delivered;
            acks.add(&shard.ack_seconds);
            summary.shards.push(ShardSummary {
                connections: shard.connections,
                sessions: shard.sessions,
                online_users: shard.online_users,
                lagging: shard.lagging,
                outbox_bytes: shard.outbox_bytes,
            });
        }
        summary.ack_seconds = (acks.quantile(0.5), acks.quantile(0.99));
        summary
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            shards: self.shards.iter().map(|slot| locked(slot).clone()).collect(),
            store: locked(&self.store).clone(),
            process: *locked(&self.process),
        }
    }
}

/// A reader that panicked left the copy whole: it only ever reads.
fn locked<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn replace<T: Clone>(slot: &Mutex<T>, value: &T) -> bool {
    match slot.try_lock() {
        Ok(mut copy) => copy.clone_from(value),
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().clone_from(value),
        Err(TryLockError::WouldBlock) => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::CloseReason;
    use crate::metrics::catalog::{Kind, Metric};
    use crate::types::{CloseCode, Command, ErrorName};

    fn value(text: &str, sample: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }

    #[test]
    fn every_metric_is_exported_from_the_start() {
        let text = Registry::new(2).render();
        for metric in Metric::ALL {
            let family = metric.name().strip_suffix("_total").unwrap_or(metric.name());
            let kind = match metric.kind() {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            assert_eq!(text.matches(&format!("# TYPE {family} {kind}\n")).count(), 1, "{family}");
            assert_eq!(text.matches(&format!("# HELP {family} ")).count(), 1, "{family}");
            let sample = if metric.kind() == Kind::Histogram { format!("{family}_count") } else { metric.name().into() };
            let lines = text.lines().filter(|line| line.strip_prefix(&sample).is_some_and(|rest| rest.starts_with([' ', '{'])));
            assert!(lines.count() > 0, "{sample}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn closed_label_sets_exist_at_zero() {
        let text = Registry::new(2).render();
        for name in Command::NAMES {
            assert_eq!(value(&text, &format!("corehub_messages_received_total{{type=\"{name}\"}}")), Some(0.0));
        }
        for name in ErrorName::ALL {
            assert_eq!(value(&text, &format!("corehub_errors_total{{name=\"{}\"}}", name.name())), Some(0.0));
        }
        for reason in CloseReason::all() {
            let sample = format!("corehub_connections_closed_total{{reason=\"{}\"}}", reason.name());
            assert_eq!(value(&text, &sample), Some(0.0));
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let sample = format!("corehub_mesh_messages_total{{from=\"{from}\",to=\"{to}\"}}");
            assert_eq!(value(&text, &sample), Some(0.0));
        }
    }

    #[test]
    fn shards_are_summed_or_told_apart_by_label() {
        let registry = Registry::new(2);
        for shard in 0..2u64 {
            let mut metrics = ShardMetrics::new(2);
            metrics.connections = 3 + shard;
            metrics.online_users = 2;
            metrics.messages_received[3] = 10;
            metrics.errors[ErrorName::RateLimited.index()] = 1;
            metrics.closed(CloseReason::Server(CloseCode::Kicked), 2_000_000);
            metrics.ack_seconds.record_us(900);
            metrics.turn_seconds.record_us(40);
            metrics.mesh_to[1 - shard as usize] = 7;
            assert!(registry.publish(shard as usize, &metrics));
        }
        registry.set_process(ProcessSample { resident_memory_bytes: 4_096, open_fds: 9, cpu_seconds: 1.5 });
        let text = registry.render();
        for (sample, wanted) in [
            ("corehub_connections{shard=\"0\"}", 2.0),
            ("corehub_connections{shard=\"1\"}", 3.0),
            ("corehub_online_users", 4.0),
            ("corehub_messages_received_total{type=\"send_message\"}", 20.0),
            ("corehub_errors_total{name=\"RATE_LIMITED\"}", 2.0),
            ("corehub_connections_closed_total{reason=\"kicked\"}", 2.0),
            ("corehub_connection_seconds_count", 2.0),
            ("corehub_connection_seconds_sum", 4.0),
            ("corehub_ack_seconds_bucket{le=\"0.0005\"}", 0.0),
            ("corehub_ack_seconds_bucket{le=\"0.001\"}", 2.0),
            ("corehub_ack_seconds_bucket{le=\"+Inf\"}", 2.0),
            ("corehub_turn_seconds_count{shard=\"1\"}", 1.0),
            ("corehub_mesh_messages_total{from=\"0\",to=\"1\"}", 7.0),
            ("process_resident_memory_bytes", 4_096.0),
            ("process_open_fds", 9.0),
            ("process_cpu_seconds_total", 1.5),
        ] {
            assert_eq!(value(&text, sample), Some(wanted), "{sample}");
        }
        let summary = registry.summary();
        assert_eq!((summary.connections, summary.online_users, summary.messages_received), (5, 4, 20));
        assert_eq!(summary.shards.len(), 2);
        assert!(summary.ack_seconds.0 > 0.0008 && summary.ack_seconds.1 < 0.001);
    }

    #[test]
    fn a_publisher_never_waits_for_a_reader() {
        let registry = Registry::new(1);
        let mut metrics = ShardMetrics::new(1);
        metrics.connections = 1;
        let reading = registry.shards[0].lock().unwrap();
        assert!(!registry.publish(0, &metrics));
        drop(reading);
        assert!(registry.publish(0, &metrics));
        assert_eq!(registry.summary().connections, 1);
    }
}
