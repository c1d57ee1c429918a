//! The network of the embedded cluster: namespaces, pod links, Services, DNS, load balancers.
