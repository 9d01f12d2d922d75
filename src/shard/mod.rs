//! Placeholder of the shard layer until it lands.
