//! What is counted of quality.
