//! The control plane: Kubernetes objects in, Linkerd's gRPC API out.
