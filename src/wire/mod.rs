//! Owns bytes: the HTTP upgrade, WebSocket frames, JSON in and out.

pub mod frame;
pub mod json;
