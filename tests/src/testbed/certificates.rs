//! The certificates and keys of one control plane, made anew each time.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// A certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// What one control plane and its administrator need to trust each other.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    /// Where the PEM files are that the API server reads.
    directory: PathBuf,
    pub(crate) ca: String,
    pub(crate) admin: Identity,
    pub(crate) controller_manager: Identity,
}

impl Certificates {
    /// Makes them and writes those that processes read from files below `directory`.
    pub(crate) fn generate(directory: &Path, cluster: &str, service_address: &str) -> Result<Self> {
        std::fs::create_dir_all(directory).context("creating the certificates' directory")?;
        let authority = Authority::new(cluster)?;
        // rustls refuses a CA's certificate as a server's, so the server has one of its own.
        let server = authority.server(service_address)?;
        let admin = authority.client("lockstep-tests-admin", "system:masters")?;
        let controller_manager = authority.client("system:kube-controller-manager", "system:masters")?;
        let service_accounts = KeyPair::generate().context("making the service accounts' key")?;
        let this = Self { directory: directory.to_owned(), ca: authority.pem(), admin, controller_manager };
        for (name, text) in [
            ("ca.crt", this.ca.as_str()),
            ("server.crt", &server.certificate),
            ("server.key", &server.key),
            ("service-accounts.key", &service_accounts.serialize_pem()),
            ("service-accounts.pub", &service_accounts.public_key_pem()),
        ] {
            std::fs::write(directory.join(name), text).with_context(|| format!("writing {name}"))?;
        }
        Ok(this)
    }

    /// The path of one of the files, for a command line.
    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

/// Signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one.
    pub(crate) fn new(cluster: &str) -> Result<Self> {
        let mut params = params(&format!("{cluster} test CA"), vec![])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().context("making the CA's key")?;
        Ok(Self(CertifiedIssuer::self_signed(params, key).context("making the CA")?))
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// For a server on the loopback, and at this address.
    pub(crate) fn server(&self, service_address: &str) -> Result<Identity> {
        let names = ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let names = names.into_iter().chain([service_address]).map(String::from).collect();
        let mut params = params("kube-apiserver", names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    fn client(&self, user: &str, group: &str) -> Result<Identity> {
        let mut params = params(user, vec![])?;
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("making a key")?;
        let certificate = params.signed_by(&key, &self.0).context("signing a certificate")?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn params(common_name: &str, names: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names).context("subject names")?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    // Wide on purpose: machines with a wrong clock run tests too.
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    Ok(params)
}
