//! Kernel settings of a network namespace.

use std::fs;

/// What every namespace gets. Some are refused in some kernels or containers; none is needed to be right, they make
/// high rates of short connections and programs that listen below port 1024 possible.
const COMMON: [(&str, &str); 6] = [
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ip_local_port_range", "10000 65001"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/core/somaxconn", "4096"),
];

/// What the node gets in addition.
const NODE: [(&str, &str); 4] = [
    // Off, because a rewritten packet may well enter by another link than its source's route names.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "10"),
    // Connections that were open before their rule came still see the rule's verdict on every packet.
    ("net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
];

/// Sets what every namespace gets, in the namespace of this thread.
pub(crate) fn set_common() {
    set(&COMMON);
}

/// Sets what the node gets, in the namespace of this thread. Only forwarding can make a cluster useless when refused.
pub(crate) fn set_node() -> std::io::Result<()> {
    set(&COMMON);
    set(&NODE);
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")
}

fn set(settings: &[(&str, &str)]) {
    for (name, value) in settings {
        if let Err(error) = fs::write(format!("/proc/sys/{name}"), value) {
            tracing::debug!(name, value, %error, "a kernel setting was refused");
        }
    }
}
