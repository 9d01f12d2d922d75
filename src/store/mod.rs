//! Placeholder of the store layer until it lands.
