//! Owns bytes: WebSocket handshake and frames, JSON in and out.
