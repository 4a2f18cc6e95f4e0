//! An archive in a bucket: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt, once};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig,
    StaticCredentialProvider,
};

use super::credentials;
use super::{Archive, ArchiveError, Listed};
use crate::config::{AzureConfig, GcsConfig, S3Config};

/// Longest time for one request, and for the way to the server.
const REQUEST: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// Attempts after the first within one call; the archiver has longer waits of its own.
const RETRIES: usize = 2;

/// Objects below a prefix of a bucket. A put returns when the service has confirmed it, which it does
/// when it is durable.
#[derive(Debug)]
pub struct BucketArchive {
    store: Arc<dyn ObjectStore>,
    prefix: String,
}

type Boxed = Box<dyn std::error::Error + Send + Sync>;

impl BucketArchive {
    /// A bucket of S3.
    ///
    /// # Errors
    /// When the settings, or the keys of a credentials file, cannot be used. Nothing is sent yet.
    pub fn s3(config: &S3Config) -> Result<Self, ArchiveError> {
        let S3Config { bucket, prefix, region, endpoint, path_style, credentials_file, profile, ca_file } =
            config;
        one_provider();
        let options = trusting(client(endpoint.as_deref()), ca_file.as_deref())
            .map_err(|source| ArchiveError::Config { setting: "archive.s3.ca_file", source })?;
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_virtual_hosted_style_request(!path_style)
            .with_client_options(options)
            .with_retry(retry());
        if let Some(region) = region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        let found = credentials::of_file(credentials_file.as_deref(), profile.as_deref()).map_err(|why| {
            ArchiveError::Config { setting: "archive.s3.credentials_file", source: why.into() }
        })?;
        if let Some(credential) = found {
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
        }
        Self::built("archive.s3", prefix, builder.build())
    }

    /// A bucket of Google Cloud Storage.
    ///
    /// # Errors
    /// When the settings cannot be used. Nothing is sent yet.
    pub fn gcs(config: &GcsConfig) -> Result<Self, ArchiveError> {
        let GcsConfig { bucket, prefix, service_account_file } = config;
        one_provider();
        let mut builder = GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(client(None))
            .with_retry(retry());
        if let Some(file) = service_account_file {
            builder = builder.with_service_account_path(file.to_string_lossy());
        }
        Self::built("archive.gcs", prefix, builder.build())
    }

    /// A container of Azure Blob Storage.
    ///
    /// # Errors
    /// When the settings cannot be used. Nothing is sent yet.
    pub fn azure(config: &AzureConfig) -> Result<Self, ArchiveError> {
        let AzureConfig { account, container, prefix, endpoint } = config;
        one_provider();
        let mut builder = MicrosoftAzureBuilder::from_env()
            .with_account(account)
            .with_container_name(container)
            .with_client_options(client(endpoint.as_deref()))
            .with_retry(retry());
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        Self::built("archive.azure", prefix, builder.build())
    }

    fn built(
        setting: &'static str,
        prefix: &str,
        store: object_store::Result<impl ObjectStore>,
    ) -> Result<Self, ArchiveError> {
        match store {
            Ok(store) => Ok(Self { store: Arc::new(store), prefix: prefix.to_owned() }),
            Err(source) => Err(ArchiveError::Config { setting, source: source.into() }),
        }
    }

    fn path(&self, path: &str) -> Result<ObjectPath, object_store::path::Error> {
        // Both are encoded already.
        if self.prefix.is_empty() {
            ObjectPath::parse(path)
        } else {
            ObjectPath::parse([&self.prefix, path].join("/"))
        }
    }
}

/// The HTTP client takes the process's TLS provider; there is one, and it is ring.
fn one_provider() {
    // An error says that it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn client(endpoint: Option<&str>) -> ClientOptions {
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new().with_allow_http(plain).with_timeout(REQUEST).with_connect_timeout(CONNECT)
}

/// Takes the authorities of a file as well as the system's.
fn trusting(options: ClientOptions, ca_file: Option<&Path>) -> Result<ClientOptions, Boxed> {
    let Some(path) = ca_file else { return Ok(options) };
    let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let certificates = Certificate::from_pem_bundle(&pem)?;
    if certificates.is_empty() {
        return Err(format!("{}: no certificate in PEM form is in it", path.display()).into());
    }
    Ok(certificates.into_iter().fold(options, ClientOptions::with_root_certificate))
}

fn retry() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: REQUEST }
}

impl Archive for BucketArchive {
    fn put<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<(), ArchiveError>> {
        let failed = |source: Boxed| ArchiveError::Put { path: path.to_owned(), source };
        Box::pin(async move {
            let object = self.path(path).map_err(|e| failed(e.into()))?;
            self.store.put(&object, content.into()).await.map(drop).map_err(|e| failed(e.into()))
        })
    }

    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Bytes, ArchiveError>> {
        let failed = |source: Boxed| ArchiveError::Get { path: path.to_owned(), source };
        Box::pin(async move {
            let object = self.path(path).map_err(|e| failed(e.into()))?;
            let found = self.store.get(&object).await.map_err(|e| failed(e.into()))?;
            found.bytes().await.map_err(|e| failed(e.into()))
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), ArchiveError>> {
        Box::pin(delete(&*self.store, self.path(path), path))
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<Listed, ArchiveError>> {
        list(&*self.store, self.path(folder), folder, &self.prefix)
    }
}

type Parsed = Result<ObjectPath, object_store::path::Error>;

/// Takes a file away; one that is not there is fine.
pub(super) async fn delete(store: &dyn ObjectStore, object: Parsed, path: &str) -> Result<(), ArchiveError> {
    let failed = |source: Boxed| ArchiveError::Delete { path: path.to_owned(), source };
    match store.delete(&object.map_err(|e| failed(e.into()))?).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

/// What is below a folder, by its path below the prefix.
pub(super) fn list<'a>(
    store: &'a dyn ObjectStore,
    object: Parsed,
    folder: &'a str,
    prefix: &'a str,
) -> BoxStream<'a, Result<Listed, ArchiveError>> {
    let failed = move |source: Boxed| ArchiveError::List { path: folder.to_owned(), source };
    let object = match object {
        Ok(object) => object,
        Err(error) => return once(async move { Err(failed(error.into())) }).boxed(),
    };
    let listed = store.list(Some(&object)).map(move |found| {
        let found = found.map_err(|e| failed(e.into()))?;
        let path = found.location.as_ref();
        let path = path.strip_prefix(prefix).unwrap_or(path).trim_start_matches('/').to_owned();
        Ok(Listed { path, size: found.size })
    });
    listed.boxed()
}
