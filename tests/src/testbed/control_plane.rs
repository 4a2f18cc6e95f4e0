//! How one control plane is put together: files, ports, command lines.

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::certificates::{Certificates, Identity};
use super::kubeconfig::{Credentials, Entry, render};
use super::process::Spec;
use super::state::{ClusterState, Component};
use super::{Binaries, Options};

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up), so that nobody gets
/// an API server's port while that is down for a restart.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Below the directory of its control plane.
const ETCD_DIRECTORY: &str = "etcd";

/// Users of audit logs want who, what, which parameters, which outcome; never bodies.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
 "rules": [{"level": "Metadata"}]}
"#;

/// A control plane that can be started.
pub(crate) struct Plan {
    pub(crate) state: ClusterState,
    certificates: Certificates,
    specs: [(Component, Spec); 3],
}

impl Plan {
    /// Chooses ports and writes certificates; `index` tells clusters of one test bed apart.
    pub(crate) fn prepare(
        directory: &Path,
        name: &str,
        index: u8,
        binaries: &Binaries,
        options: &Options,
    ) -> Result<Self> {
        let directory = directory.join(name);
        let data = directory.join(ETCD_DIRECTORY);
        std::fs::create_dir_all(&data).with_context(|| format!("creating {}", data.display()))?;
        let certificates = Certificates::generate(
            &directory.join("certificates"),
            name,
            &format!("10.{}.0.1", 100 + index),
        )?;
        let [etcd_port, port] = free_ports()?;
        let state = ClusterState {
            name: name.to_owned(),
            server: format!("https://127.0.0.1:{port}"),
            etcd: format!("http://127.0.0.1:{etcd_port}"),
            ca: certificates.path("ca.crt").into(),
            audit_log: options.audit.then(|| directory.join("audit.log")),
            processes: vec![],
            directory,
        };
        if options.audit {
            std::fs::write(state.directory.join("audit-policy.json"), AUDIT_POLICY)
                .context("writing the audit policy")?;
        }
        let Identity { certificate, key } = &certificates.controller_manager;
        let credentials = Credentials::Certificate { certificate, key };
        let kubeconfig = render(&[Entry {
            name,
            server: &state.server,
            ca: &certificates.ca,
            namespace: None,
            credentials,
        }]);
        std::fs::write(state.directory.join("controller-manager.kubeconfig"), kubeconfig)
            .context("writing the controller manager's kubeconfig")?;
        let specs = Component::ALL.map(|component| {
            let args = match component {
                Component::Etcd => etcd_args(&state, binaries),
                Component::ApiServer => api_server_args(&state, &certificates, index, port, options),
                Component::ControllerManager => controller_manager_args(&state, &certificates, binaries),
            };
            let spec = Spec {
                program: binaries.path(component.binary()),
                args,
                directory: state.directory.clone(),
                log: log_path(&state, component),
            };
            (component, spec)
        });
        Ok(Self { state, certificates, specs })
    }

    pub(crate) fn spec(&self, component: Component) -> Result<&Spec> {
        let found = self.specs.iter().find(|(candidate, _)| *candidate == component);
        found.map(|(_, spec)| spec).context("no such component")
    }
}

/// A kubeconfig with an administrator's context for each.
pub(crate) fn admin_kubeconfig(plans: &[Plan]) -> String {
    let entries = plans.iter().map(|plan| Entry {
        name: &plan.state.name,
        server: &plan.state.server,
        ca: &plan.certificates.ca,
        namespace: None,
        credentials: Credentials::Certificate {
            certificate: &plan.certificates.admin.certificate,
            key: &plan.certificates.admin.key,
        },
    });
    render(&entries.collect::<Vec<_>>())
}

/// Where a component logs.
#[must_use]
pub(crate) fn log_path(state: &ClusterState, component: Component) -> std::path::PathBuf {
    state.directory.join(format!("{}.log", component.binary()))
}

/// Where etcd keeps its data.
#[must_use]
pub(crate) fn etcd_directory(state: &ClusterState) -> std::path::PathBuf {
    state.directory.join(ETCD_DIRECTORY)
}

fn etcd_args(state: &ClusterState, binaries: &Binaries) -> Vec<String> {
    let mut args = vec![
        format!("--data-dir={}", etcd_directory(state).display()),
        format!("--listen-client-urls={}", state.etcd),
        format!("--advertise-client-urls={}", state.etcd),
        // A single member has no peers: any port will do.
        "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    if binaries.etcd_unsafe_no_fsync {
        args.push("--unsafe-no-fsync".to_owned());
    }
    args
}

fn api_server_args(
    state: &ClusterState,
    certificates: &Certificates,
    index: u8,
    port: u16,
    options: &Options,
) -> Vec<String> {
    let mut args = vec![
        format!("--etcd-servers={}", state.etcd),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        // Loopback addresses are not valid in Endpoints, and nobody here reaches the API server by its Service.
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--tls-cert-file={}", certificates.path("server.crt")),
        format!("--tls-private-key-file={}", certificates.path("server.key")),
        format!("--client-ca-file={}", certificates.path("ca.crt")),
        format!("--service-account-key-file={}", certificates.path("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", certificates.path("service-accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--enable-admission-plugins=ServiceAccount".to_owned(),
        format!("--service-cluster-ip-range=10.{}.0.0/16", 100 + index),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
    ];
    if let Some(log) = &state.audit_log {
        args.push(format!("--audit-log-path={}", log.display()));
        args.push(format!("--audit-policy-file={}", state.directory.join("audit-policy.json").display()));
    }
    args.extend(options.api_server_args.iter().cloned());
    args
}

fn controller_manager_args(
    state: &ClusterState,
    certificates: &Certificates,
    binaries: &Binaries,
) -> Vec<String> {
    let mut args = vec![
        format!("--kubeconfig={}", state.directory.join("controller-manager.kubeconfig").display()),
        format!("--service-account-private-key-file={}", certificates.path("service-accounts.key")),
        format!("--root-ca-file={}", certificates.path("ca.crt")),
        // There is one only; renewing a lease would add requests to every count.
        "--leader-elect=false".to_owned(),
        // Nobody scrapes it.
        "--secure-port=0".to_owned(),
        // Its default of 20 requests a second makes namespaces go away slowly when many tests end.
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ];
    if binaries.version() < (1, 24) {
        // The insecure port is on by default before 1.24, and unknown from then on.
        args.push("--port=0".to_owned());
    }
    args
}

/// Ports that are free now. Somebody may take one before its process does: starting then fails, and is tried again.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let width = u32::from(PORTS.end - PORTS.start);
    let first = random()? % width;
    let mut found = [0; N];
    let mut count = 0;
    for offset in 0..width {
        let port = PORTS.start + u16::try_from((first + offset) % width)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            found[count] = port;
            count += 1;
            if count == N {
                return Ok(found);
            }
        }
    }
    bail!("no free ports on 127.0.0.1 in {PORTS:?}")
}

/// Randomness of the operating system.
pub(crate) fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    let mut source = std::fs::File::open("/dev/urandom").context("opening /dev/urandom")?;
    source.read_exact(&mut bytes).context("reading /dev/urandom")?;
    Ok(u32::from_ne_bytes(bytes))
}
