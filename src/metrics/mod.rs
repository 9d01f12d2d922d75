//! Placeholder of the metrics layer until it lands.
