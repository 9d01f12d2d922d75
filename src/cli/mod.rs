//! Placeholder of the cli layer until it lands.
pub mod bench;
