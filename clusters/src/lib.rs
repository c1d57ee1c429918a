//! The Cluster trait and its backends.
