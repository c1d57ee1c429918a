//! Kubernetes API machinery: patches, apply, selectors, protobuf bodies, schemas.
