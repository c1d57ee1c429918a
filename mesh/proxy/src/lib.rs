//! The mesh proxy.
