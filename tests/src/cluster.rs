//! A cluster as tests see it: objects are YAML going in and JSON coming out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, eventually};
use crate::patience::scaled;
use crate::testbed::kubeconfig::{Credentials, Entry, render};
use crate::testbed::{ClusterState, ControlPlane, State};

/// Field manager of everything that tests apply.
pub const FIELD_MANAGER: &str = "lockstep-tests";
/// Longer than any test run.
const TOKEN_SECONDS: u32 = 24 * 60 * 60;
/// A request that takes longer met a frozen API server; waiting loops then try again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a write is repeated whose answer came too late.
pub(crate) const LATE_ANSWERS: usize = 3;

/// What discovery said, by apiVersion and kind.
type Kinds = BTreeMap<(String, String), (ApiResource, Scope)>;

/// One cluster of a test bed, with an administrator's client.
///
/// Cheap to clone. Its connections belong to the tokio runtime that made it: make one per test.
#[derive(Clone)]
pub struct Cluster {
    testbed: Arc<State>,
    state: ClusterState,
    client: Client,
    control_plane: ControlPlane,
    kinds: Arc<Mutex<Kinds>>,
}

impl Cluster {
    pub(crate) async fn connect(testbed: &State, state: &ClusterState) -> Result<Self> {
        let options = KubeConfigOptions { context: Some(state.name.clone()), ..KubeConfigOptions::default() };
        let kubeconfig = Kubeconfig::read_from(&testbed.kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        config.read_timeout = Some(scaled(REQUEST_TIMEOUT));
        let client = Client::try_from(config)?;
        let control_plane = ControlPlane::new(testbed.socket.clone(), state.clone(), client.clone());
        Ok(Self {
            testbed: Arc::new(testbed.clone()),
            state: state.clone(),
            client,
            control_plane,
            kinds: Arc::default(),
        })
    }

    /// The same cluster with connections of the current runtime.
    ///
    /// # Errors
    /// If the kubeconfig is gone.
    pub async fn reconnect(&self) -> Result<Self> {
        Self::connect(&self.testbed, &self.state).await
    }

    /// Name of the cluster and of its context in [`Testbed::kubeconfig`](crate::testbed::Testbed::kubeconfig).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// An administrator's client.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Its processes, for tests of failures.
    #[must_use]
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// What is known about it.
    #[must_use]
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// GETs a path and gives the text.
    ///
    /// # Errors
    /// If the answer is not a success.
    pub async fn raw(&self, path: &str) -> Result<String> {
        let request = Request::get(path).body(vec![])?;
        self.client.request_text(request).await.with_context(|| format!("GET {path} of {}", self.name()))
    }

    /// An API for objects of a kind; `namespace` is ignored for cluster-scoped kinds. Discovery is asked once per kind.
    ///
    /// # Errors
    /// If the cluster does not serve the kind.
    pub async fn api(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Result<Api<DynamicObject>> {
        let key = (api_version.to_owned(), kind.to_owned());
        let known = self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let (resource, scope) = match known {
            Some(known) => known,
            None => {
                let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
                let (resource, capabilities) =
                    pinned_kind(&self.client, &GroupVersionKind::gvk(group, version, kind))
                        .await
                        .with_context(|| format!("{} does not serve {api_version} {kind}", self.name()))?;
                let known = (resource, capabilities.scope);
                self.kinds.lock().unwrap_or_else(PoisonError::into_inner).insert(key, known.clone());
                known
            }
        };
        Ok(match (scope, namespace) {
            (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(self.client(), namespace, &resource),
            _ => Api::all_with(self.client(), &resource),
        })
    }

    /// Server-side applies every document of a YAML text, by force, and gives what the server answered.
    ///
    /// # Errors
    /// If a document has no apiVersion, kind or name, or the API server refuses it.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<Value>> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("parsing YAML")?;
        let mut applied = vec![];
        for document in documents {
            applied.push(self.apply_value(&document).await?);
        }
        Ok(applied)
    }

    /// Server-side applies one object, by force.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub async fn apply_value(&self, object: &Value) -> Result<Value> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (Some(api_version), Some(kind), Some(name)) =
            (text(&object["apiVersion"]), text(&object["kind"]), text(&object["metadata"]["name"]))
        else {
            bail!("an object needs apiVersion, kind and metadata.name: {object}");
        };
        let namespace = text(&object["metadata"]["namespace"]);
        let api = self.api(&api_version, &kind, namespace.as_deref().or(Some("default"))).await?;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        // On a busy machine etcd answers late once in a while; an apply may be repeated.
        let mut applied = api.patch(&name, &params, &Patch::Apply(object)).await;
        for _ in 0..LATE_ANSWERS {
            if !applied.as_ref().is_err_and(is_late) {
                break;
            }
            applied = api.patch(&name, &params, &Patch::Apply(object)).await;
        }
        value_of(applied.with_context(|| format!("applying {kind} {name} to {}", self.name()))?)
    }

    /// Gets an object.
    ///
    /// # Errors
    /// If it is not there, or the API server refuses.
    pub async fn get(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value> {
        let api = self.api(api_version, kind, namespace).await?;
        value_of(api.get(name).await.with_context(|| format!("getting {kind} {name} of {}", self.name()))?)
    }

    /// Gets an object, `None` if it is not there.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn find(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>> {
        let api = self.api(api_version, kind, namespace).await?;
        api.get_opt(name).await?.map(value_of).transpose()
    }

    /// Lists objects, of all namespaces if none is given; `selector` is a label selector, empty for all.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<Value>> {
        let api = self.api(api_version, kind, namespace).await?;
        let list = api.list(&ListParams::default().labels(selector)).await?;
        list.items.into_iter().map(value_of).collect()
    }

    /// Merge-patches an object.
    ///
    /// # Errors
    /// If it is not there, or the API server refuses.
    pub async fn patch(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<Value> {
        let api = self.api(api_version, kind, namespace).await?;
        value_of(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// Merge-patches the status of an object: clusters without nodes run no Pods, so tests say what those would have said.
    ///
    /// # Errors
    /// If it is not there, or the API server refuses.
    pub async fn patch_status(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        status: &Value,
    ) -> Result<Value> {
        let api = self.api(api_version, kind, namespace).await?;
        let patch = json!({ "status": status });
        value_of(api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await?)
    }

    /// Deletes an object, in the background; it is fine if it is not there.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn delete(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<()> {
        let api = self.api(api_version, kind, namespace).await?;
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error).with_context(|| format!("deleting {kind} {name} of {}", self.name())),
        }
    }

    /// Applies CustomResourceDefinitions and waits until they are established.
    ///
    /// # Errors
    /// If they are refused or not established in time.
    pub async fn install_crd(&self, yaml: &str) -> Result<()> {
        for definition in self.apply(yaml).await? {
            let (Some(api_version), Some(kind), Some(name)) = (
                definition["apiVersion"].as_str(),
                definition["kind"].as_str(),
                definition["metadata"]["name"].as_str(),
            ) else {
                bail!("not a CustomResourceDefinition: {definition}");
            };
            ensure!(kind == "CustomResourceDefinition", "not a CustomResourceDefinition but {kind}");
            eventually(PATIENCE, &format!("{name} is established"), async || {
                let current = self.get(api_version, kind, None, name).await?;
                let conditions = current["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let holds =
                    |condition: &Value| condition["type"] == "Established" && condition["status"] == "True";
                ensure!(conditions.iter().any(holds), "conditions: {conditions:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// A kubeconfig text for a ServiceAccount, with one context named like this cluster.
    ///
    /// The token is requested, which all versions from 1.20 can do.
    ///
    /// # Errors
    /// If there is no such ServiceAccount.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": { "audiences": [], "expirationSeconds": TOKEN_SECONDS },
        });
        let request = Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
        let answer: Value = self.client.request(request.body(serde_json::to_vec(&body)?)?).await?;
        let token =
            answer["status"]["token"].as_str().context("the answer to a TokenRequest holds no token")?;
        let ca = std::fs::read_to_string(&self.state.ca).context("reading the CA")?;
        Ok(render(&[Entry {
            name: self.name(),
            server: &self.state.server,
            ca: &ca,
            namespace: Some(namespace),
            credentials: Credentials::Token(token),
        }]))
    }
}

fn value_of(object: DynamicObject) -> Result<Value> {
    serde_json::to_value(object).context("an object as JSON")
}

/// Did etcd or the API server take too long? On a busy machine that happens.
pub(crate) fn is_late(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.message.contains("request timed out") || status.code == 504,
        // No answer at all within [`REQUEST_TIMEOUT`].
        kube::Error::Service(_) => true,
        _ => false,
    }
}

/// A definition of the kind `Queue` in that group, namespaced and of any content: YAML.
#[must_use]
pub fn queues(group: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{ name: queues.{group} }}
spec:
  group: {group}
  scope: Namespaced
  names: {{ kind: Queue, listKind: QueueList, plural: queues, singular: queue }}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {{ openAPIV3Schema: {{ type: object, x-kubernetes-preserve-unknown-fields: true }} }}
"
    )
}
