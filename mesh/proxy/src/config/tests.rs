use super::*;

fn strings(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn linkerds_environment_is_understood() {
    let config = Config::from_strings(&strings(&[
        ("MESHGATE_PROXY_IDENTITY", "optional"),
        ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", "linkerd-dst.linkerd.svc.cluster.local.:8086"),
        ("LINKERD2_PROXY_POLICY_SVC_ADDR", "linkerd-policy.linkerd.svc.cluster.local.:8090"),
        ("LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES", "svc.cluster.local., .example.org."),
        ("LINKERD2_PROXY_INGRESS_MODE", "true"),
        ("LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", "25,4000-4100"),
        ("LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT", "100ms"),
        ("LINKERD2_PROXY_INBOUND_IPS", "10.244.0.2"),
        ("LINKERD2_PROXY_INBOUND_PORTS", ""),
        ("MESHGATE_PROXY_SOCKET_MARK", "0x2102"),
        ("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL", "20s"),
        ("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT", "6s"),
        ("MESHGATE_PROXY_CONNECT_HTTP2_KEEP_ALIVE_INTERVAL", "0s"),
        ("LINKERD2_PROXY_OUTBOUND_CONNECT_KEEPALIVE", "0s"),
    ]))
    .unwrap();
    assert_eq!(config.outbound_listen_addrs, ["127.0.0.1:4140".parse().unwrap()]);
    assert_eq!(config.inbound_listen_addr, "0.0.0.0:4143".parse().unwrap());
    assert_eq!(config.profile_suffixes, ["svc.cluster.local", "example.org"]);
    assert!(config.ingress_mode && !config.informational_headers && config.loop_guard);
    assert!(config.is_opaque(25) && config.is_opaque(4050) && !config.is_opaque(80));
    assert_eq!(config.inbound_connect_timeout, Duration::from_millis(100));
    assert_eq!(config.socket_mark, Some(0x2102));
    let keep_alive = |interval, timeout| {
        Some(KeepAlive { interval: Duration::from_secs(interval), timeout: Duration::from_secs(timeout) })
    };
    assert_eq!(config.inbound_server_keep_alive, keep_alive(20, 6));
    assert_eq!(config.outbound_server_keep_alive, keep_alive(10, 3), "where nothing is said, as the chart does");
    assert_eq!(config.connect_keep_alive, None);
    assert_eq!(config.outbound_connect_keepalive, None);
    assert_eq!(config.outbound_connect_user_timeout, Some(Duration::from_secs(30)));
    assert_eq!(config.dialect, Dialect::Modern);
    assert_eq!((config.profile_networks, config.cluster_networks), (vec![], vec![]), "nobody has said any");
}

#[test]
fn policies_for_the_cluster_need_its_networks() {
    let address = ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", "localhost:8086");
    let policy = ("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "cluster-authenticated");
    let errors = Config::from_strings(&strings(&[address, policy])).unwrap_err();
    assert!(errors.to_string().contains("or the cluster's in LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS"), "{errors}");
    let networks = ("LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS", "10.0.0.0/8");
    assert_eq!(Config::from_strings(&strings(&[address, policy, networks])).unwrap().cluster_networks.len(), 1);
}

#[test]
fn an_identity_is_whole_or_not_there() {
    let address = ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", "localhost:8086");
    assert!(Config::from_strings(&strings(&[address])).unwrap().identity.is_none());
    let service = ("LINKERD2_PROXY_IDENTITY_SVC_ADDR", "localhost:8080");
    let errors = Config::from_strings(&strings(&[address, service])).unwrap_err();
    assert_eq!(errors.0.len(), 3, "{errors}");
    let config = Config::from_strings(&strings(&[
        address,
        service,
        ("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", "web.default.serviceaccount.identity.linkerd.cluster.local"),
        ("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", "/token"),
        ("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", "-----BEGIN CERTIFICATE-----\n"),
    ]));
    assert_eq!(config.unwrap().identity.unwrap().addr.authority, "localhost:8080");
}

#[test]
fn nobody_is_trusted_outside_of_the_pod_who_proves_nothing() {
    let away = [
        ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", "linkerd-dst:8086"),
        ("LINKERD2_PROXY_POLICY_SVC_ADDR", "10.0.0.1:8090"),
    ];
    let identity = [
        ("LINKERD2_PROXY_IDENTITY_SVC_ADDR", "localhost:8080"),
        ("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", "web"),
        ("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", "/token"),
        ("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", "PEM"),
    ];
    let missing = |variables: &[&[(&str, &str)]]| -> Vec<&'static str> {
        let Err(ConfigErrors(errors)) = Config::from_strings(&strings(&variables.concat())) else { return vec![] };
        let name = |error| match error {
            ConfigError::Missing { name, .. } | ConfigError::Invalid { name, .. } => name,
        };
        errors.into_iter().map(name).collect()
    };
    let [destination, policy] = ["LINKERD2_PROXY_DESTINATION_SVC_NAME", "LINKERD2_PROXY_POLICY_SVC_NAME"];
    let optional = ("MESHGATE_PROXY_IDENTITY", "optional");
    assert_eq!(missing(&[&away]), ["LINKERD2_PROXY_IDENTITY_SVC_ADDR"]);
    assert_eq!(missing(&[&away, &identity]), [destination, policy]);
    assert_eq!(missing(&[&away, &identity, &[(policy, "linkerd")]]), [destination]);
    assert!(missing(&[&away, &identity, &[(policy, "linkerd"), (destination, "linkerd")]]).is_empty());
    assert!(missing(&[&away, &[optional]]).is_empty() && missing(&[&away, &identity, &[optional]]).is_empty());

    let here = ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", "[::1]:8086");
    let disabled = |value| [here, ("LINKERD2_PROXY_IDENTITY_DISABLED", value)];
    assert!(missing(&[&disabled("")]).is_empty());
    assert_eq!(missing(&[&disabled("1")]), ["LINKERD2_PROXY_IDENTITY_DISABLED"]);
}

#[test]
fn every_mistake_is_told_at_once() {
    let errors = Config::from_strings(&strings(&[
        ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", "4143"),
        ("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT", "10"),
        ("MESHGATE_PROXY_DIALECT", "old"),
    ]))
    .unwrap_err();
    let text = errors.to_string();
    for part in [
        "LINKERD2_PROXY_DESTINATION_SVC_ADDR is not set",
        "LINKERD2_PROXY_INBOUND_LISTEN_ADDR: expected an IP address and port",
        "LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT: expected a duration with a unit such as `1s` or `100ms`, found `10`",
        "MESHGATE_PROXY_DIALECT: expected `modern`, `documented`, `2.8`, `2.9`, `2.10.0`, `2.11` or `2.13.0`, found `old`",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(errors.0.len(), 4);
}
