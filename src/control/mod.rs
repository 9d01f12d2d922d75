//! Placeholder of the control layer until it lands.
