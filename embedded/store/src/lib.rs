//! The objects of the embedded cluster and the rules they obey, without HTTP.
//!
//! [`Store`] is the only door to the objects. The API server, the controllers and the node read, write
//! and watch through it, so all of them get Kubernetes' semantics and Kubernetes' errors ([`Status`]).
//! [`PodAccess`] is what the API server asks of the node (logs, exec, port-forward); it lives here so that
//! neither has to know the other.
//!
//! Data flow: a write comes in as JSON, is checked against its schema (`fields`), gets its metadata (`meta`), defaults
//! (`defaults`) and what it needs from other objects (`store::admission`), is validated (`validation`), takes the
//! next revision and is published to the watches of its resource (`store::table`).

mod builtin;
mod conversion;
mod crds;
mod defaults;
mod fields;
mod invalid;
mod json;
mod meta;
mod pods;
mod resource;
pub mod scale;
mod selectable;
mod status;

mod store;
mod validation;
mod warnings;

pub use meshgate_machinery::at;
pub use meta::new_uid;
pub use pods::{Attach, BoxFuture, Exec, LogOptions, PodAccess};
pub use resource::{GroupResource, PrinterColumn, ResourceType, ResourceVersion};
pub use status::Status;
pub use store::{
    DeleteOptions, Draft, Event, Listing, Object, Selectors, Start, Store, Subresource, Watch, WriteOptions,
};
pub use warnings::Warnings;
