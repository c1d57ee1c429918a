//! The injector: manifests in, manifests with the mesh proxy out.
