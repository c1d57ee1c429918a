//! Kubernetes API machinery as pure functions over [`serde_json::Value`]: no storage, no clock, no I/O.
//!
//! What a write goes through, in order:
//!
//! 1. the body becomes a JSON object: [`protobuf`] decodes the bodies of typed clients;
//! 2. a patch is applied to the live object: [`patch`] for the three patch formats, [`managed_fields::apply`] for
//!    server-side apply;
//! 3. [`schema`] says which fields are unknown or have the wrong type, and prunes, defaults and validates custom
//!    objects;
//! 4. [`managed_fields::track_update`] notes who wrote what, as text that [`managed_fields::Wire`] writes out again.
//!
//! [`at`](fn@at) looks into an object. [`selector`] decides which objects a list or watch is about. [`shape`] is what
//! patches and apply know about lists: which are merged by key, which are sets, which are replaced as a whole.

mod at;
pub mod managed_fields;
pub mod patch;
pub mod protobuf;
pub mod schema;
pub mod selector;
pub mod shape;

pub use at::at;
