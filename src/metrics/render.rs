//! Owns the way from counters to the OpenMetrics text. Never reads a shared value: it works on copies. Lives on control's
//! threads.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::catalog::{Kind, Metric};
use super::{CloseReason, Histogram, ProcessSample, ShardMetrics, StoreMetrics};
use crate::types::{Command, ErrorName};

/// Copies of everything, taken for one scrape.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) shards: Vec<ShardMetrics>,
    pub(super) store: StoreMetrics,
    pub(super) process: ProcessSample,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in Metric::ALL {
            let kind = match metric.kind() {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            // The encoder appends `_total` to counters, and a full stop to nothing.
            let family = metric.name().strip_suffix("_total").unwrap_or(metric.name());
            let help = format!("{}.", metric.help());
            let family = encoder.encode_descriptor(family, &help, None, kind)?;
            self.encode_one(*metric, Family { encoder: family, metric: *metric })?;
        }
        Ok(())
    }
}

impl Snapshot {
    fn encode_one(&self, metric: Metric, mut out: Family<'_>) -> fmt::Result {
        match metric {
            Metric::Connections => out.per_shard(&self.shards, |shard| shard.connections),
            Metric::Sessions => out.per_shard(&self.shards, |shard| shard.sessions),
            Metric::ConnectionsOpened => out.number(&[], self.sum(|shard| shard.connections_opened)),
            Metric::ConnectionsRefused => out.number(&[], self.sum(|shard| shard.connections_refused)),
            Metric::OnlineUsers => out.number(&[], self.sum(|shard| shard.online_users)),
            Metric::MessagesDelivered => out.number(&[], self.sum(|shard| shard.messages_delivered)),
            Metric::BytesReceived => out.number(&[], self.sum(|shard| shard.bytes_received)),
            Metric::BytesSent => out.number(&[], self.sum(|shard| shard.bytes_sent)),
            Metric::FaultsCaught => out.number(&[], self.sum(|shard| shard.faults_caught)),
            Metric::OutboxBytes => out.number(&[], self.sum(|shard| shard.outbox_bytes)),
            Metric::StoreDamaged => out.number(&[], self.sum(|shard| shard.store_damaged)),
            Metric::EphemeralShed => out.number(&[], self.sum(|shard| shard.ephemeral_shed)),
            Metric::LaggingConnections => out.number(&[], self.sum(|shard| shard.lagging)),
            Metric::ConnectionsClosed => CloseReason::all()
                .try_for_each(|reason| out.number(&[reason.name()], self.sum(|shard| shard.connections_closed[reason.index()]))),
            Metric::MessagesReceived => Command::NAMES
                .iter()
                .enumerate()
                .try_for_each(|(at, name)| out.number(&[name], self.sum(|shard| shard.messages_received[at]))),
            Metric::Errors => ErrorName::ALL
                .iter()
                .try_for_each(|name| out.number(&[name.name()], self.sum(|shard| shard.errors[name.index()]))),
            Metric::MeshMessages => self.encode_mesh(&mut out),
            Metric::ConnectionSeconds => out.histogram(&[], &self.merged(|shard| &shard.connection_seconds)),
            Metric::AckSeconds => out.histogram(&[], &self.merged(|shard| &shard.ack_seconds)),
            Metric::DeliverySeconds => out.histogram(&[], &self.merged(|shard| &shard.delivery_seconds)),
            Metric::TurnSeconds => {
                self.shards.iter().enumerate().try_for_each(|(at, shard)| out.histogram(&[&at.to_string()], &shard.turn_seconds))
            }
            Metric::StoreCommitSeconds => out.histogram(&[], &self.store.commit_seconds),
            Metric::StoreBatchMessages => out.histogram(&[], &self.store.batch_messages),
            Metric::SearchLagMessages => out.number(&[], self.store.search_lag_messages),
            Metric::SearchRebuildConversations => out.number(&[], self.store.search_rebuild_conversations),
            Metric::ResidentMemoryBytes => out.number(&[], self.process.resident_memory_bytes),
            Metric::OpenFds => out.number(&[], self.process.open_fds),
            Metric::CpuSeconds => out.fraction(self.process.cpu_seconds),
        }
    }

    /// Every pair of two shards; a shard sends nothing to itself.
    fn encode_mesh(&self, out: &mut Family<'_>) -> fmt::Result {
        for (from, shard) in self.shards.iter().enumerate() {
            for (to, sent) in shard.mesh_to.iter().enumerate().filter(|(to, _)| *to != from) {
                out.number(&[&from.to_string(), &to.to_string()], *sent)?;
            }
        }
        Ok(())
    }

    fn sum(&self, field: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.shards.iter().map(field).sum()
    }

    fn merged(&self, field: impl Fn(&ShardMetrics) -> &Histogram) -> Histogram {
        let mut shards = self.shards.iter().map(field);
        let mut merged = shards.next().cloned().unwrap_or_else(Histogram::latency);
        shards.for_each(|histogram| merged.add(histogram));
        merged
    }
}

/// One metric that is being written; label values are given in the order of the catalogue.
struct Family<'a> {
    encoder: MetricEncoder<'a>,
    metric: Metric,
}

impl Family<'_> {
    fn per_shard(&mut self, shards: &[ShardMetrics], field: impl Fn(&ShardMetrics) -> u64) -> fmt::Result {
        shards.iter().enumerate().try_for_each(|(at, shard)| self.number(&[&at.to_string()], field(shard)))
    }

    fn number(&mut self, values: &[&str], number: u64) -> fmt::Result {
        let kind = self.metric.kind();
        self.with_labels(values, |encoder| match kind {
            Kind::Counter => encoder.encode_counter(&number, None::<&Exemplar<NoLabels, u64>>),
            // A gauge of this exporter is signed; no gauge here comes near the end of that range.
            _ => encoder.encode_gauge(&i64::try_from(number).unwrap_or(i64::MAX)),
        })
    }

    fn fraction(&mut self, number: f64) -> fmt::Result {
        self.encoder.encode_counter(&number, None::<&Exemplar<NoLabels, f64>>)
    }

    fn histogram(&mut self, values: &[&str], histogram: &Histogram) -> fmt::Result {
        self.with_labels(values, |encoder| {
            encoder.encode_histogram::<NoLabels>(histogram.sum(), histogram.count(), &histogram.buckets(), None)
        })
    }

    fn with_labels(&mut self, values: &[&str], write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result) -> fmt::Result {
        let names = self.metric.labels();
        debug_assert_eq!(names.len(), values.len(), "{}", self.metric.name());
        if names.is_empty() {
            // An empty family would be written with empty braces.
            return write(&mut self.encoder);
        }
        let labels: Vec<(&str, &str)> = names.iter().copied().zip(values.iter().copied()).collect();
        write(&mut self.encoder.encode_family(&labels)?)
    }
}

type NoLabels = [(&'static str, &'static str); 0];
