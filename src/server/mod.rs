//! Placeholder of the server layer until it lands.
