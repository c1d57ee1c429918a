//! The node of the embedded cluster: pods as processes.
