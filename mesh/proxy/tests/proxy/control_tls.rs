//! A control plane that has to prove who it is.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    support::{App, Authority, ControlPlane, Mesh, Setup, served_by},
    wire::Wire,
};

const CLIENT: &str = "client.ns.serviceaccount.identity.linkerd.cluster.local";
const DESTINATION: &str = "linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local";
const IDENTITY: &str = "linkerd-identity.linkerd.serviceaccount.identity.linkerd.cluster.local";

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(20);

/// What stands before a control plane and ends TLS there, as Linkerd's own proxies do.
#[derive(Clone)]
struct Front {
    address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    clients: Arc<Mutex<Vec<Client>>>,
}

/// Who shook hands: the name that it asked for, and its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Client {
    sni: Option<String>,
    certificate: Option<CertificateDer<'static>>,
}

impl Client {
    fn is(&self, name: &str) -> bool {
        let certificate = self.certificate.as_ref().map(|der| webpki::EndEntityCert::try_from(der).unwrap());
        certificate.is_some_and(|certificate| certificate.valid_dns_names().eq([name]))
    }
}

impl Front {
    /// Has a certificate for `name` and passes on to `to`.
    async fn start(authority: &Authority, name: &str, to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(Mutex::new(server_config(authority, name)));
        let front = Self { address, config, clients: Arc::default() };
        let this = front.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move { this.pass_on(stream, to).await });
            }
        });
        front
    }

    async fn pass_on(&self, stream: TcpStream, to: SocketAddr) {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config.lock()));
        let Ok(mut stream) = acceptor.accept(stream).await else { return };
        let session = stream.get_ref().1;
        let certificate = session.peer_certificates().map(|chain| chain[0].clone().into_owned());
        self.clients.lock().push(Client { sni: session.server_name().map(str::to_owned), certificate });
        let Ok(mut server) = TcpStream::connect(to).await else { return };
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
    }

    /// Is somebody else from now on.
    fn becomes(&self, authority: &Authority, name: &str) {
        *self.config.lock() = server_config(authority, name);
    }

    fn clients(&self) -> Vec<Client> {
        self.clients.lock().clone()
    }
}

fn server_config(authority: &Authority, name: &str) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.anchor().as_bytes()).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let (certificate, key) = authority.certify(name);
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}

/// A proxy that is certified by an identity service at `identity` and asks a control plane at `destination`.
fn setup(authority: &Authority, destination: SocketAddr, identity: SocketAddr) -> Setup {
    Setup::new()
        .identified(CLIENT, authority)
        .with("LINKERD2_PROXY_IDENTITY_SVC_ADDR", &identity.to_string())
        .with("LINKERD2_PROXY_DESTINATION_SVC_ADDR", &destination.to_string())
        .with("LINKERD2_PROXY_POLICY_SVC_ADDR", &destination.to_string())
        .original(1, cluster_ip())
}

/// That is told who must be there.
fn told(setup: Setup) -> Setup {
    told_of_destination(setup).with("LINKERD2_PROXY_IDENTITY_SVC_NAME", IDENTITY)
}

fn told_of_destination(setup: Setup) -> Setup {
    setup.with("LINKERD2_PROXY_DESTINATION_SVC_NAME", DESTINATION).with("LINKERD2_PROXY_POLICY_SVC_NAME", DESTINATION)
}

fn cluster_ip() -> SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

const ENDPOINTS: &str = "web.ns.svc.cluster.local:80";

/// Asks until `name` answers.
async fn until_served_by(mesh: &Mesh, name: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = mesh.connect(1).await.get("/", &[]).await;
        if reply.status == 200 && served_by(&reply.body) == name {
            return;
        }
        assert!(Instant::now() < deadline, "{name} does not answer: {reply:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_named_control_plane_proves_itself_and_nobody_reads_along() {
    let (authority, app) = (Authority::start(HOUR).await, App::named("app").await);
    let control = ControlPlane::start().await;
    control.service("web", cluster_ip(), &[app.address]);
    let front = Front::start(&authority, DESTINATION, control.address()).await;
    let issuer = Front::start(&authority, IDENTITY, authority.address()).await;
    let wire = Wire::default();
    let (destination, identity) = (wire.tap(front.address).await, wire.tap(issuer.address).await);
    let mesh = told(setup(&authority, destination, identity)).start_with(control).await;

    assert_eq!(served_by(&mesh.connect(1).await.get("/", &[]).await.body), "app");
    assert!(wire.begins_with_tls() && !wire.has(ENDPOINTS) && !wire.has(CLIENT));
    let clients = front.clients();
    assert!(!clients.is_empty() && clients.iter().all(|client| client.is(CLIENT)), "{clients:?}");
    assert!(clients.iter().all(|client| client.sni.as_deref() == Some(DESTINATION)), "{clients:?}");
    // Who asks for the first certificate has none to show.
    let nobody = Client { sni: Some(IDENTITY.to_owned()), certificate: None };
    assert_eq!(issuer.clients().first(), Some(&nobody));
    let labels = format!("addr=\"{destination}\",tls=\"true\",server_id=\"{DESTINATION}\"");
    assert!(mesh.sum(&["control_request_total", &labels]).await >= 2);
}

/// The control of the test above: nobody said who must be there.
#[tokio::test]
async fn a_control_plane_without_a_name_is_spoken_to_in_plaintext() {
    let (authority, app) = (Authority::start(HOUR).await, App::named("app").await);
    let control = ControlPlane::start().await;
    control.service("web", cluster_ip(), &[app.address]);
    let wire = Wire::default();
    let (destination, identity) = (wire.tap(control.address()).await, wire.tap(authority.address()).await);
    let mesh = setup(&authority, destination, identity).start_with(control).await;
    assert_eq!(served_by(&mesh.connect(1).await.get("/", &[]).await.body), "app");
    assert!(!wire.begins_with_tls() && wire.has(ENDPOINTS) && wire.has(CLIENT));
    assert!(mesh.sum(&["control_request_total", &format!("addr=\"{destination}\",tls=\"no_identity\"")]).await >= 2);
}

/// Without an identity there is nobody whom the proxy could trust, and in its own pod nobody whom it would have to.
#[tokio::test]
async fn a_name_that_nobody_can_or_need_prove_is_not_asked_for() {
    let (authority, app) = (Authority::start(HOUR).await, App::named("app").await);
    let without = Setup::new().original(1, cluster_ip());
    let within = Setup::new().identified(CLIENT, &authority).original(1, app.address);
    let within = within.with("MESHGATE_PROXY_OUTBOUND_LOOPBACK", "refuse");
    for (setup, status) in [(without, 200), (within, 502)] {
        let mesh = told(setup).start().await;
        mesh.control.service("web", cluster_ip(), &[app.address]);
        assert_eq!(mesh.connect(1).await.get("/", &[]).await.status, status);
        assert!(mesh.control.calls().iter().any(|call| call.starts_with("GetProfile")), "{:?}", mesh.control.calls());
    }
}

#[tokio::test]
async fn a_control_plane_that_is_somebody_else_is_asked_nothing_until_it_is_the_right_one() {
    let (authority, stranger) = (Authority::start(HOUR).await, Authority::start(HOUR).await);
    let app = App::named("app").await;
    for (who, name) in [(&authority, IDENTITY), (&stranger, DESTINATION)] {
        let control = ControlPlane::start().await;
        control.service("web", cluster_ip(), &[app.address]);
        let front = Front::start(who, name, control.address()).await;
        let setup = told_of_destination(setup(&authority, front.address, authority.address()));
        let mesh = setup.with("LINKERD2_PROXY_INBOUND_PORTS", "8080").start_with(control).await;
        // The policy of the port is asked for from the start, again and again.
        let failed = ["control_response_total", "tls=\"true\"", "classification=\"failure\""];
        until("it is not tried again", async || mesh.sum(&failed).await >= 3).await;
        assert!(mesh.control.calls().is_empty(), "{:?}", mesh.control.calls());
        front.becomes(&authority, DESTINATION);
        until_served_by(&mesh, "app").await;
        assert!(!mesh.control.calls().is_empty());
    }
}

#[tokio::test]
async fn a_control_plane_that_speaks_plaintext_only_is_not_asked_where_it_has_a_name() {
    let authority = Authority::start(HOUR).await;
    let control = ControlPlane::start().await;
    let setup = told_of_destination(setup(&authority, control.address(), authority.address()));
    let mesh = setup.with("LINKERD2_PROXY_INBOUND_PORTS", "8080").start_with(control).await;
    let failed = ["control_response_total", "tls=\"true\"", "classification=\"failure\""];
    until("it is not tried again", async || mesh.sum(&failed).await >= 3).await;
    assert!(mesh.control.calls().is_empty(), "{:?}", mesh.control.calls());
}

#[tokio::test]
async fn an_identity_service_that_is_somebody_else_certifies_nobody() {
    let authority = Authority::start(HOUR).await;
    let control = ControlPlane::start().await;
    let issuer = Front::start(&authority, DESTINATION, authority.address()).await;
    let mesh = told(setup(&authority, control.address(), issuer.address)).start_with(control).await;
    let failed = ["control_identity_cert_refreshes_total", "result=\"error\""];
    until("it is not tried again", async || mesh.sum(&failed).await >= 3).await;
    assert_eq!(mesh.sum(&["control_identity_cert_refreshes_total", "result=\"ok\""]).await, 0);
    issuer.becomes(&authority, IDENTITY);
    let succeeded = ["control_identity_cert_refreshes_total", "result=\"ok\""];
    until("it is not certified", async || mesh.sum(&succeeded).await > 0).await;
}

#[tokio::test]
async fn a_new_certificate_leaves_streams_alone_and_is_shown_on_new_connections() {
    let authority = Authority::start(Duration::from_millis(100)).await;
    let (old, new) = (App::named("old").await, App::named("new").await);
    let control = ControlPlane::start().await;
    control.service("web", cluster_ip(), &[old.address]);
    let front = Front::start(&authority, DESTINATION, control.address()).await;
    let wire = Wire::default();
    let setup = told_of_destination(setup(&authority, wire.tap(front.address).await, authority.address()));
    // What is asked once is to be asked once, however long the rest takes.
    let setup = setup.with("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "1h");
    let mesh = setup.with("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "20ms").start_with(control).await;
    until_served_by(&mesh, "old").await;
    let (clients, calls) = (front.clients(), mesh.control.calls());

    let renewed = ["control_identity_cert_refreshes_total", "result=\"ok\""];
    let at_least = mesh.sum(&renewed).await + 5;
    until("the certificate is not renewed", async || mesh.sum(&renewed).await >= at_least).await;
    mesh.control.set_endpoints(ENDPOINTS, &[new.address]);
    until_served_by(&mesh, "new").await;
    let known = |calls: Vec<String>| calls.into_iter().filter(|call| call.ends_with(ENDPOINTS)).collect::<Vec<_>>();
    assert_eq!((front.clients(), known(mesh.control.calls())), (clients.clone(), known(calls)));

    wire.cut();
    until("nobody connects again", async || front.clients().len() > clients.len()).await;
    let last = front.clients().pop().unwrap();
    assert!(last.is(CLIENT) && !clients.contains(&last), "{last:?}");
}

/// A certificate whose time is over would be refused, and it is what the next one is asked for instead of.
#[tokio::test]
async fn who_was_certified_once_shows_that_to_the_identity_service_while_it_is_valid() {
    for (lifetime, shown) in [(HOUR, true), (Duration::from_millis(1), false)] {
        let authority = Authority::start(lifetime).await;
        let issuer = Front::start(&authority, IDENTITY, authority.address()).await;
        let wire = Wire::default();
        let control = ControlPlane::start().await;
        let setup = told(setup(&authority, control.address(), wire.tap(issuer.address).await));
        let often = ["LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "LINKERD2_PROXY_IDENTITY_MAX_REFRESH"];
        let setup = often.into_iter().fold(setup, |setup, name| setup.with(name, "50ms"));
        let mesh = setup.start_with(control).await;
        let renewed = ["control_identity_cert_refreshes_total", "result=\"ok\""];
        until("it is not certified", async || mesh.sum(&renewed).await >= 1).await;
        let before = issuer.clients().len();
        wire.cut();
        until("nobody connects again", async || issuer.clients().len() > before).await;
        let again = issuer.clients()[before].clone();
        assert_eq!((again.is(CLIENT), again.certificate.is_some()), (shown, shown), "{again:?}");
    }
}
