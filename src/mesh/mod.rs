//! Placeholder of the mesh layer until it lands.

pub mod directory;
