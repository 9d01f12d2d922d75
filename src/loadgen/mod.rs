//! Placeholder of the loadgen layer until it lands.
