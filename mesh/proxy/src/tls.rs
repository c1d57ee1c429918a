//! TLS between proxies, and with the control plane: each shows the certificate of its identity and checks the other's.
//!
//! As in Linkerd (`linkerd/meshtls`, `linkerd/tls`): TLS 1.3 only, no resumption, the server's name of an endpoint as SNI and its
//! identity as a SAN of its certificate. A client is asked for a certificate and may have none: whether that is enough is for the
//! policy of the port to say.

mod accept;
mod verify;

pub(crate) use accept::{Accepted, Hello, LIMIT as HELLO_LIMIT, Peer, Progress, accept};

use std::{fmt, io, sync::Arc, time::SystemTime};

use linkerd2_proxy_api::destination::{TlsIdentity, tls_identity::Strategy};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, DnsName, PrivatePkcs8KeyDer, ServerName, TrustAnchor},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::{io::Prefixed, transport_header::PROTOCOL};
use verify::VerifyIdentity;

/// Who an endpoint is, by what the control plane says, and by which name it is asked for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ServerIdentity {
    /// The SAN that its certificate must have: a name such as `web.ns.serviceaccount.identity.linkerd.cluster.local`, or a URI.
    id: Arc<str>,
    sni: ServerName<'static>,
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

impl ServerIdentity {
    /// With a name that is both.
    pub(crate) fn named(name: &DnsName<'static>) -> Self {
        Self { id: name.as_ref().into(), sni: ServerName::DnsName(name.clone()) }
    }

    /// From the control plane's answer. The error is what is wrong with it.
    pub(crate) fn of(identity: &TlsIdentity) -> Result<Self, String> {
        let server_name = identity.server_name.as_ref().map(|name| name.name.as_str());
        let (id, sni) = match identity.strategy.as_ref().ok_or("it has no strategy")? {
            Strategy::DnsLikeIdentity(dns) => (dns.name.as_str(), server_name.unwrap_or(&dns.name)),
            Strategy::UriLikeIdentity(uri) => {
                (uri.uri.as_str(), server_name.ok_or("a URI needs a server name beside it")?)
            }
        };
        let sni = ServerName::try_from(sni.to_owned()).map_err(|error| format!("`{sni}`: {error}"))?;
        Ok(Self { id: id.into(), sni })
    }

    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }
}

/// Whom a proxy trusts.
#[derive(Clone)]
pub(crate) struct Trust {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    pub(crate) fn new(anchors: Vec<TrustAnchor<'static>>) -> Self {
        Self { roots: Arc::new(RootCertStore { roots: anchors }), provider: Arc::new(provider()) }
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.roots.roots
    }

    /// Shakes hands with a server as nobody: without a certificate.
    pub(crate) async fn connect(&self, stream: TcpStream, to: &ServerIdentity) -> io::Result<TlsStream<Prefixed>> {
        self.shake(stream, to, None, Vec::new()).await
    }

    async fn shake(
        &self,
        stream: TcpStream,
        to: &ServerIdentity,
        key: Option<&Arc<SingleCertAndKey>>,
        protocols: Vec<Vec<u8>>,
    ) -> io::Result<TlsStream<Prefixed>> {
        let verifier = VerifyIdentity::new(Arc::clone(to.id()), Arc::clone(&self.roots), &self.provider);
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match key {
            Some(key) => config.with_client_cert_resolver(Arc::clone(key) as _),
            None => config.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = protocols;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(to.sni.clone(), Prefixed::new(stream, Default::default())).await?;
        Ok(stream.into())
    }
}

/// A certificate with its key, and whom its owner trusts: all that a connection to or from another proxy needs.
pub(crate) struct Credentials {
    name: Arc<str>,
    key: Arc<SingleCertAndKey>,
    trust: Trust,
    until: SystemTime,
    server: Arc<ServerConfig>,
    /// For connections to the proxy's own port: with the transport header's protocol.
    direct: Arc<ServerConfig>,
}

impl Credentials {
    /// `chain` begins with the certificate of `name`, which is valid `until` then; `key` is PKCS #8.
    pub(crate) fn new(
        name: Arc<str>,
        chain: Vec<CertificateDer<'static>>,
        until: SystemTime,
        key: PrivatePkcs8KeyDer<'static>,
        trust: Trust,
    ) -> Result<Self, rustls::Error> {
        let Trust { roots, provider } = &trust;
        let key = CertifiedKey::new(chain, ring::sign::any_ecdsa_type(&key.into())?);
        let key = Arc::new(SingleCertAndKey::from(key));
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(&key) as _);
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut direct = server.clone();
        direct.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self { name, key, trust, until, server: Arc::new(server), direct: Arc::new(direct) })
    }

    /// Whether its time is not over.
    pub(crate) fn is_valid(&self) -> bool {
        SystemTime::now() < self.until
    }

    /// Shakes hands with the endpoint that a connection has been made to. With `tagged`, a transport header is to follow.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        to: &ServerIdentity,
        tagged: bool,
    ) -> io::Result<TlsStream<Prefixed>> {
        let protocols = if tagged { vec![PROTOCOL.to_vec()] } else { Vec::new() };
        self.trust.shake(stream, to, Some(&self.key), protocols).await
    }
}

/// Linkerd's cipher suites in its order, and no version before TLS 1.3.
pub(crate) fn provider() -> CryptoProvider {
    use ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    CryptoProvider {
        cipher_suites: vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256],
        ..ring::default_provider()
    }
}
