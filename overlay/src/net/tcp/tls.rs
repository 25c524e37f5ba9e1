//! TLS 1.3 with ed25519 raw public keys (RFC 7250) on both sides. No certificates, no authorities: the key is the
//! identity, and whether it is the wanted one is decided by its id after the handshake.

use std::sync::Arc;

use ed25519_dalek::pkcs8::EncodePrivateKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, ServerConnection};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
};

use super::super::connection::progress;
use super::super::pipe::Pipe;
use crate::id::NodeId;
use crate::identity::Identity;
use crate::machine::Refusal;

/// The application protocol that both sides must name (RFC 7301).
const ALPN: &[u8] = b"treecast/1";
/// Stands in front of an ed25519 key in its SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Both roles' settings of one node.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    pub(super) fn new(identity: &Identity) -> Result<Tls, Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(AnyKey { algorithms: provider.signature_verification_algorithms });
        let key = certified_key(identity, &provider)?;
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key.clone())));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_sni = false;
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Tls { client: Arc::new(client), server: Arc::new(server) })
    }

    pub(super) fn client(&self) -> Result<ClientConnection, Error> {
        // The name is neither sent nor checked; rustls asks for one.
        let name = ServerName::try_from("treecast").expect("a constant that is a valid name");
        ClientConnection::new(self.client.clone(), name)
    }

    pub(super) fn server(&self) -> Result<ServerConnection, Error> {
        ServerConnection::new(self.server.clone())
    }
}

fn certified_key(identity: &Identity, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    let secret = identity.signing_key().to_pkcs8_der().map_err(|error| Error::General(error.to_string()))?;
    let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(secret.as_bytes().to_vec()));
    let signer = provider.key_provider.load_private_key(secret)?;
    let spki = [&SPKI_HEAD[..], &identity.public_key()].concat();
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer)))
}

/// Makes the handshake; gives the other side's id.
pub(super) async fn handshake(pipe: &mut Pipe) -> Result<NodeId, Refusal> {
    while pipe.is_handshaking() {
        progress(pipe).await?;
    }
    let tls = pipe.tls_state().expect("this pipe was made with TLS");
    if tls.alpn_protocol() != Some(ALPN) {
        return Err(Refusal::Protocol("it names no application protocol".into()));
    }
    let certificates = tls.peer_certificates().unwrap_or_default();
    match certificates.first().and_then(public_key) {
        Some(key) => Ok(NodeId::of_public_key(key)),
        None => Err(Refusal::Protocol("it shows no ed25519 key".into())),
    }
}

fn public_key<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a [u8; 32]> {
    certificate.strip_prefix(&SPKI_HEAD)?.try_into().ok()
}

/// Accepts every ed25519 key whose owner signs the handshake with it.
#[derive(Debug)]
struct AnyKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyKey {
    fn check(certificate: &CertificateDer<'_>) -> Result<(), Error> {
        public_key(certificate).map(|_| ()).ok_or(CertificateError::BadEncoding.into())
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(certificate.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }

    fn only_tls13() -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        AnyKey::check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        AnyKey::only_tls13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        AnyKey::check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        AnyKey::only_tls13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
