//! The demo applications: emojivoto, the echo backend and the probe pod.
