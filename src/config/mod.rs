//! Placeholder of the config layer until it lands.
