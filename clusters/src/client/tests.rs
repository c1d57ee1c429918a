use serde_json::json;

use super::*;

fn kubeconfig(server: &str, own: Option<&str>) -> Kubeconfig {
    let config = json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "proxy-url": own, "tls-server-name": "api"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "mine"}}],
    });
    serde_json::from_value(config).unwrap()
}

/// Which proxy is on the way to a server, in an environment.
fn by(server: &str, own: Option<&str>, environment: &[(&str, &str)]) -> Option<String> {
    let variable =
        |name: &str| environment.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
    config(&kubeconfig(server, own), "x", &variable).unwrap().proxy_url.map(|uri| uri.to_string())
}

const PROXY: (&str, &str) = ("HTTPS_PROXY", "http://proxy.corp:3128");
const FAR: &str = "https://far.example:6443";

#[test]
fn the_environment_names_the_proxy() {
    let corp = Some("http://proxy.corp:3128/".to_owned());
    assert_eq!(by(FAR, None, &[PROXY]), corp);
    assert_eq!(by(FAR, None, &[("https_proxy", "proxy.corp:3128")]), corp, "http where nothing is said");
    assert_eq!(by(FAR, None, &[("HTTPS_PROXY", ""), ("https_proxy", "http://proxy.corp:3128")]), corp);
    assert_eq!(by("http://far.example", None, &[("HTTP_PROXY", "http://proxy.corp:3128")]), corp);
    let with_password = "http://me:secret@proxy.corp:3128/";
    assert_eq!(by(FAR, None, &[("HTTPS_PROXY", with_password)]).as_deref(), Some(with_password));
    // Neither is for a server of this scheme.
    let others = [("HTTP_PROXY", "http://proxy.corp:3128"), ("ALL_PROXY", "http://proxy.corp:3128")];
    assert_eq!(by(FAR, None, &others), None);
    assert_eq!(by(FAR, None, &[]), None);
}

#[test]
fn no_proxy_leads_to_this_machine() {
    for here in ["https://127.0.0.1:6443", "https://127.5.5.5", "https://localhost:6443", "https://[::1]:6443"] {
        assert_eq!(by(here, None, &[PROXY]), None, "{here}");
        // But the kubeconfig's own does: it is a tunnel's end, say.
        assert_eq!(by(here, Some("socks5://10.0.0.1:1080"), &[]).as_deref(), Some("socks5://10.0.0.1:1080/"), "{here}");
    }
}

#[test]
fn no_proxy_is_about_the_server() {
    for (server, list) in [
        (FAR, "*"),
        (FAR, "far.example"),
        (FAR, "localhost, .example ,"),
        (FAR, "*.example"),
        (FAR, "example:6443"),
        ("https://10.1.2.3:6443", "localhost,,10.0.0.0/8"),
        ("https://10.1.2.3", "10.1.2.3:443"),
        ("https://[fd00::1]:6443", "fd00::/8"),
        ("https://[fd00::1]:6443", "[fd00::1]:6443"),
    ] {
        assert_eq!(by(server, None, &[PROXY, ("NO_PROXY", list)]), None, "{list}");
        assert_eq!(by(server, None, &[PROXY, ("no_proxy", list)]), None, "{list}");
        let own = by(server, Some("http://own:1"), &[PROXY, ("NO_PROXY", list)]);
        assert_eq!(own.as_deref(), Some("http://own:1/"), "the kubeconfig's own counts always: {list}");
    }
    for list in ["proxy.corp", "ar.example", "far.example:443", "10.0.0.0/8", "127.0.0.1,", ""] {
        assert!(by(FAR, None, &[PROXY, ("NO_PROXY", list)]).is_some(), "{list}");
    }
}

#[test]
fn a_kubeconfig_is_read_as_kube_does() {
    let read = config(&kubeconfig(FAR, None), "x", &|_| None).unwrap();
    assert_eq!((read.default_namespace.as_str(), read.tls_server_name.as_deref()), ("mine", Some("api")));
    assert_eq!(read.cluster_url.to_string(), format!("{FAR}/"));
    assert!(read.auth_info.token.is_some() && read.root_cert.is_none() && !read.accept_invalid_certs);
    let mut broken = kubeconfig(FAR, None);
    broken.clusters[0].cluster.as_mut().unwrap().server = None;
    assert_eq!(config(&broken, "x", &|_| None).unwrap_err(), "its cluster \"c\" has no server");
    broken.clusters.clear();
    assert_eq!(config(&broken, "x", &|_| None).unwrap_err(), "nothing is said of its cluster \"c\"");
}

#[tokio::test]
async fn certificate_authorities_are_those_that_kube_finds() {
    let authority = rcgen::generate_simple_self_signed(["api".to_owned()]).unwrap().cert;
    let pem = format!("A comment\n{0}{0}", authority.pem());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, &pem).unwrap();
    let (data, path) = (STANDARD.encode(&pem), file.display().to_string());
    for (data, path) in [(Some(data), None), (Some(String::new()), Some(path))] {
        let mut kubeconfig = kubeconfig(FAR, None);
        kubeconfig.current_context = Some("x".to_owned());
        let cluster = kubeconfig.clusters[0].cluster.as_mut().unwrap();
        (cluster.certificate_authority_data, cluster.certificate_authority) = (data, path);
        let found = config(&kubeconfig, "x", &|_| None).unwrap().root_cert.unwrap();
        assert_eq!(found, vec![authority.der().to_vec(); 2]);
        cluster_without_empty(&mut kubeconfig);
        let kubes = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        assert_eq!(found, kubes.root_cert.unwrap());
    }
}

/// Empty data is none for kubectl, and a certificate for kube.
fn cluster_without_empty(kubeconfig: &mut Kubeconfig) {
    let cluster = kubeconfig.clusters[0].cluster.as_mut().unwrap();
    cluster.certificate_authority_data = cluster.certificate_authority_data.take().filter(|data| !data.is_empty());
}
