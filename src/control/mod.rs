//! RING 3
