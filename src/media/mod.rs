//! RING 1 — the selective forwarding middlebox: rooms, participants, tracks, subscriptions.

pub mod meter;
