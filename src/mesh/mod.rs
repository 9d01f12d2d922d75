//! Placeholder of the mesh layer until it lands.
