//! A certificate that is made for this run, and quinn's settings with it.

use std::error::Error;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The name of the server.
pub const NAME: &str = "localhost";

/// Makes a certificate that signs itself, and its key.
pub fn make() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.key_pair.serialize_der());
    Ok((made.cert.into(), key.into()))
}

/// Returns the settings of a server and of a client that trusts it.
pub fn settings() -> Result<(quinn::ServerConfig, quinn::ClientConfig), Box<dyn Error>> {
    let (certificate, key) = make()?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let server = quinn::ServerConfig::with_single_cert(vec![certificate], key)?;
    let client = quinn::ClientConfig::with_root_certificates(Arc::new(roots))?;
    Ok((server, client))
}
