//! Plans against a small world: objects by key, and a server that fills in what servers fill in.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A cluster, and what was deleted in it.
#[derive(Clone, Debug, Default)]
struct World {
    objects: BTreeMap<ObjectKey, Value>,
    kept: BTreeMap<ObjectKey, Kept>,
    policies: BTreeMap<ObjectKey, String>,
    writes: u64,
    tombstones: i64,
    other_cluster: bool,
}

fn key(kind: &str, name: &str) -> ObjectKey {
    let (kind, group) = kind.split_once('.').unwrap_or((kind, ""));
    let namespace = if matches!(kind, "Namespace" | "CustomResourceDefinition" | "PersistentVolume") {
        ""
    } else {
        "shop"
    };
    ObjectKey::new(GroupKind::new(group, kind), namespace, name)
}

fn kinds() -> BTreeMap<GroupKind, Served> {
    [
        ("", "Namespace", "v1"),
        ("", "ConfigMap", "v1"),
        ("", "Secret", "v1"),
        ("", "Service", "v1"),
        ("", "ServiceAccount", "v1"),
        ("", "PersistentVolume", "v1"),
        ("", "PersistentVolumeClaim", "v1"),
        ("", "Pod", "v1"),
        ("apps", "Deployment", "apps/v1"),
        ("apps", "ReplicaSet", "apps/v1"),
        ("batch", "Job", "batch/v1"),
        ("batch", "CronJob", "batch/v1"),
        ("networking.k8s.io", "Ingress", "networking.k8s.io/v1"),
        ("networking.k8s.io", "IngressClass", "networking.k8s.io/v1"),
        ("apiextensions.k8s.io", "CustomResourceDefinition", "apiextensions.k8s.io/v1"),
        ("example.com", "Cache", "example.com/v2"),
    ]
    .into_iter()
    .map(|(group, kind, version)| {
        let cluster = ["Namespace", "PersistentVolume", "CustomResourceDefinition", "IngressClass"];
        let served = Served { versions: vec![version.to_owned()], namespaced: !cluster.contains(&kind) };
        (GroupKind::new(group, kind), served)
    })
    .collect()
}

impl World {
    fn with(objects: &[(&str, &str, Value)]) -> Self {
        let mut world = Self::default();
        world.put(
            &key("Namespace", "shop"),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        );
        for (kind, name, rest) in objects {
            world.put(&key(kind, name), body(kind, name, rest));
        }
        world
    }

    /// What the server makes of a write.
    fn put(&mut self, key: &ObjectKey, mut body: Value) -> Uid {
        self.writes += 1;
        let uid = match self.objects.get(key) {
            Some(there) => there["metadata"]["uid"].clone(),
            None => json!(format!("uid-{}", self.writes)),
        };
        let metadata = &mut body["metadata"];
        metadata["uid"] = uid.clone();
        metadata["resourceVersion"] = json!(self.writes.to_string());
        metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        match key.gk.kind.as_ref() {
            "Service" if body["spec"]["clusterIP"].is_null() => body["spec"]["clusterIP"] = json!("10.0.0.9"),
            "Namespace" => body["spec"] = json!({"finalizers": ["kubernetes"]}),
            "PersistentVolumeClaim" => {
                body["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"])
            }
            "Deployment" => body["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("1"),
            _ => {}
        }
        body["status"] = json!({"observed": self.writes});
        self.objects.insert(key.clone(), body);
        Uid::new(uid.as_str().unwrap())
    }

    fn delete(&mut self, kind: &str, name: &str) -> Kept {
        let key = key(kind, name);
        let body = self.objects.remove(&key).unwrap();
        let uid = Uid::new(body["metadata"]["uid"].as_str().unwrap());
        self.tombstones += 1;
        let tombstone = self.tombstones;
        let kept = Kept { tombstone, key: key.clone(), uid, body, dependency: false };
        self.kept.insert(key, kept.clone());
        kept
    }

    fn plan(&self, selected: &[Kept], options: &Options) -> RestorePlan {
        let mut situation =
            Situation { same_cluster: !self.other_cluster, served: kinds(), ..Situation::default() };
        for _ in 0..20 {
            let needs = match plan(selected, options, &situation) {
                Planned::Plan(planned) => return planned,
                Planned::Needs(needs) => needs,
            };
            for key in needs.places {
                let live = self.objects.get(&key).map_or(Live::Absent, |body| Live::Present(body.clone()));
                let policy = self.policies.get(&key).cloned();
                situation.places.insert(key, Place { live, policy });
            }
            for key in needs.kept {
                let kept = self.kept.get(&key).map(|kept| Kept { dependency: true, ..kept.clone() });
                situation.kept.insert(key, kept);
            }
        }
        panic!("it never has what it needs");
    }

    fn carry_out(&mut self, plan: &RestorePlan) {
        let mut uids = BTreeMap::new();
        for item in plan.items.iter().filter(|item| item.verdict.writes()) {
            if item.verdict == Verdict::Recreate {
                self.objects.remove(&item.key);
            }
            let there = self.objects.contains_key(&item.key);
            assert_eq!(there, item.verdict == Verdict::Update, "{item:?}");
            let body = item.write(|key| uids.get(key).cloned()).unwrap();
            let uid = self.put(&item.key, body);
            uids.insert(item.key.clone(), uid);
        }
    }
}

fn body(kind: &str, name: &str, rest: &Value) -> Value {
    let key = key(kind, name);
    let version = kinds()[&key.gk].versions[0].clone();
    let mut body = json!({"apiVersion": version, "kind": key.gk.kind.as_ref(), "metadata": {"name": name}});
    if !key.namespace.is_empty() {
        body["metadata"]["namespace"] = json!("shop");
    }
    merge(&mut body, rest);
    body
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn verdicts(plan: &RestorePlan) -> Vec<String> {
    plan.items.iter().map(|item| format!("{} {}", item.verdict, item.key)).collect()
}

fn owned_by(kind: &str, name: &str, uid: &Uid, controller: bool) -> Value {
    let version = kinds()[&key(kind, name).gk].versions[0].clone();
    let kind = kind.split('.').next().unwrap();
    json!({"metadata": {"ownerReferences": [{"apiVersion": version, "kind": kind, "name": name,
        "uid": uid.as_str(), "controller": controller}]}})
}

#[test]
fn a_deployment_comes_back_without_what_the_server_gave_it() {
    let mut world = World::with(&[("Deployment.apps", "web", json!({"spec": {"replicas": 2}}))]);
    let kept = world.delete("Deployment.apps", "web");
    let plan = world.plan(&[kept], &Options::default());
    assert_eq!(verdicts(&plan), ["Create Deployment.apps shop/web"]);
    assert_eq!(plan.items[0].body, Some(body("Deployment.apps", "web", &json!({"spec": {"replicas": 2}}))));
    world.carry_out(&plan);
    assert_eq!(
        verdicts(&world.plan(&[world.kept[&key("Deployment.apps", "web")].clone()], &Options::default())),
        ["InPlace Deployment.apps shop/web"]
    );
}

#[test]
fn of_a_group_roots_are_written_and_what_controllers_make_is_counted() {
    let mut world = World::with(&[("Deployment.apps", "web", json!({}))]);
    let uid = |world: &World, k: &ObjectKey| Uid::new(world.objects[k]["metadata"]["uid"].as_str().unwrap());
    let deployment = uid(&world, &key("Deployment.apps", "web"));
    world.put(
        &key("ReplicaSet.apps", "web-1"),
        body("ReplicaSet.apps", "web-1", &owned_by("Deployment.apps", "web", &deployment, true)),
    );
    let set = uid(&world, &key("ReplicaSet.apps", "web-1"));
    world.put(
        &key("Pod", "web-1-a"),
        body("Pod", "web-1-a", &owned_by("ReplicaSet.apps", "web-1", &set, true)),
    );
    world.put(
        &key("ConfigMap", "mine"),
        body("ConfigMap", "mine", &owned_by("Deployment.apps", "web", &deployment, false)),
    );
    let members: Vec<Kept> =
        [("Pod", "web-1-a"), ("ReplicaSet.apps", "web-1"), ("ConfigMap", "mine"), ("Deployment.apps", "web")]
            .map(|(kind, name)| world.delete(kind, name))
            .into();
    let plan = world.plan(&members, &Options::default());
    assert_eq!(
        verdicts(&plan),
        [
            "Rebuilt Pod shop/web-1-a",
            "Create Deployment.apps shop/web",
            "Rebuilt ReplicaSet.apps shop/web-1",
            "Create ConfigMap shop/mine"
        ],
        "the owner before what it owns"
    );
    world.carry_out(&plan);
    let owner = &world.objects[&key("ConfigMap", "mine")]["metadata"]["ownerReferences"][0]["uid"];
    assert_eq!(*owner, world.objects[&key("Deployment.apps", "web")]["metadata"]["uid"], "mapped");
    assert_ne!(owner, deployment.as_str());
}

#[test]
fn an_owner_that_is_not_there_is_dropped_with_a_word_and_a_controller_that_is_makes_its_own() {
    let mut world = World::with(&[("ReplicaSet.apps", "web-1", json!({}))]);
    let set = Uid::new(world.objects[&key("ReplicaSet.apps", "web-1")]["metadata"]["uid"].as_str().unwrap());
    world.put(&key("Pod", "a"), body("Pod", "a", &owned_by("ReplicaSet.apps", "web-1", &set, true)));
    let kept = world.delete("Pod", "a");
    let plan = world.plan(std::slice::from_ref(&kept), &Options::default());
    assert_eq!(verdicts(&plan), ["Skip Pod shop/a"]);
    let forced = world.plan(std::slice::from_ref(&kept), &Options { force: true, ..Options::default() });
    assert_eq!(verdicts(&forced), ["Create Pod shop/a"]);
    world.delete("ReplicaSet.apps", "web-1");
    let plan = world.plan(&[kept], &Options::default());
    assert_eq!(verdicts(&plan), ["Create Pod shop/a"]);
    assert!(
        plan.items[0].words[0].contains("without its owner ReplicaSet.apps shop/web-1"),
        "{:?}",
        plan.items[0].words
    );
}

#[test]
fn what_is_in_the_way_is_met_as_the_options_say() {
    let mut world = World::with(&[("ConfigMap", "a", json!({"data": {"k": "kept"}}))]);
    let kept = world.delete("ConfigMap", "a");
    world.put(&key("ConfigMap", "a"), body("ConfigMap", "a", &json!({"data": {"k": "other", "added": "1"}})));
    let of =
        |on_conflict| world.plan(std::slice::from_ref(&kept), &Options { on_conflict, ..Options::default() });
    let fail = of(OnConflict::Fail);
    assert_eq!(verdicts(&fail), ["Conflict ConfigMap shop/a"]);
    assert!(
        fail.items[0].why.contains("data.k") && fail.items[0].why.contains("data.added"),
        "{}",
        fail.items[0].why
    );
    assert_eq!(verdicts(&of(OnConflict::Skip)), ["Skip ConfigMap shop/a"]);
    assert_eq!(verdicts(&of(OnConflict::Update)), ["Update ConfigMap shop/a"]);
    assert_eq!(verdicts(&of(OnConflict::Recreate)), ["Recreate ConfigMap shop/a"]);
    assert_eq!(verdicts(&of(OnConflict::Rename)), ["Rename ConfigMap shop/a-restored"]);
    let update = of(OnConflict::Update);
    assert_eq!(update.items[0].body.as_ref().unwrap()["data"], json!({"k": "kept"}), "as a whole");
}

#[test]
fn what_holds_others_is_never_recreated() {
    let mut world = World::with(&[("PersistentVolumeClaim", "disk", json!({"spec": {"size": 1}}))]);
    let kept = world.delete("PersistentVolumeClaim", "disk");
    world.put(
        &key("PersistentVolumeClaim", "disk"),
        body("PersistentVolumeClaim", "disk", &json!({"spec": {"size": 2}})),
    );
    let options = Options { on_conflict: OnConflict::Recreate, ..Options::default() };
    assert_eq!(verdicts(&world.plan(&[kept], &options)), ["Blocked PersistentVolumeClaim shop/disk"]);
}

#[test]
fn where_a_policy_looks_after_it_only_force_restores() {
    let mut world = World::with(&[("ConfigMap", "a", json!({}))]);
    let kept = world.delete("ConfigMap", "a");
    world.policies.insert(key("ConfigMap", "a"), "shops".to_owned());
    let plan = world.plan(std::slice::from_ref(&kept), &Options::default());
    assert_eq!(verdicts(&plan), ["Blocked ConfigMap shop/a"]);
    assert!(plan.items[0].why.contains("`shops`") && plan.items[0].why.contains("--force"));
    let options = Options { force: true, ..Options::default() };
    assert_eq!(verdicts(&world.plan(&[kept], &options)), ["Create ConfigMap shop/a"]);
}

#[test]
fn what_is_named_and_missing_is_told_and_comes_along_where_asked_for() {
    let volumes = json!({"spec": {"template": {"spec": {"volumes": [{"name": "v", "configMap": {"name": "files"}},
        {"name": "w", "secret": {"secretName": "never-was"}}]}}}});
    let mut world =
        World::with(&[("Deployment.apps", "web", volumes), ("ConfigMap", "files", json!({"data": {}}))]);
    world.delete("ConfigMap", "files");
    let kept = world.delete("Deployment.apps", "web");
    let plan = world.plan(std::slice::from_ref(&kept), &Options::default());
    let missing: Vec<String> = plan.missing.iter().map(|missing| missing.key.to_string()).collect();
    assert_eq!(missing, ["ConfigMap shop/files", "Secret shop/never-was"]);
    let options = Options { with_dependencies: true, ..Options::default() };
    let plan = world.plan(&[kept], &options);
    assert_eq!(verdicts(&plan), ["Create ConfigMap shop/files", "Create Deployment.apps shop/web"]);
    assert_eq!(plan.missing.len(), 1);
    assert!(plan.items[0].dependency);
}

#[test]
fn a_namespace_that_is_gone_blocks_unless_it_comes_along() {
    let mut world = World::with(&[("ConfigMap", "a", json!({}))]);
    let kept = world.delete("ConfigMap", "a");
    let namespace = world.delete("Namespace", "shop");
    let plan = world.plan(std::slice::from_ref(&kept), &Options::default());
    assert_eq!(verdicts(&plan), ["Blocked ConfigMap shop/a"]);
    let plan = world.plan(&[kept, namespace], &Options::default());
    assert_eq!(verdicts(&plan), ["Create Namespace shop", "Create ConfigMap shop/a"]);
    assert!(plan.items[1].untried, "no server can check it before");
}

#[test]
fn into_another_namespace_and_another_cluster_goes_what_means_the_same_there() {
    let ports = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}, "finalizers": ["x/y"]},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30080}]}});
    let mut world = World::with(&[("Service", "web", ports)]);
    let kept = world.delete("Service", "web");
    let spec = |plan: &RestorePlan| plan.items[0].body.as_ref().unwrap()["spec"].clone();
    let here = world.plan(std::slice::from_ref(&kept), &Options::default());
    assert_eq!(spec(&here), json!({"ports": [{"port": 80, "nodePort": 30080}]}));
    assert!(
        here.items[0].body.as_ref().unwrap()["metadata"]["annotations"].is_object(),
        "kubectl goes on from there"
    );
    let other =
        Options { namespace: Some("shop".to_owned()), name: Some("web2".to_owned()), ..Options::default() };
    let there = world.plan(std::slice::from_ref(&kept), &other);
    assert_eq!(spec(&there), json!({"ports": [{"port": 80}]}));
    assert_eq!(
        there.items[0].body.as_ref().unwrap()["metadata"],
        json!({"name": "web2", "namespace": "shop"})
    );
    let words = there.items[0].words.join("; ");
    assert!(words.contains("x/y") && words.contains("node ports anew"), "{words}");
    world.other_cluster = true;
    assert_eq!(spec(&world.plan(&[kept], &Options::default())), json!({"ports": [{"port": 80}]}));
}

#[test]
fn what_the_cluster_makes_itself_is_left_to_it() {
    let token = json!({"type": "kubernetes.io/service-account-token"});
    let mut world = World::with(&[
        ("ConfigMap", "kube-root-ca.crt", json!({})),
        ("Secret", "robot-token-x", token),
        ("ServiceAccount", "default", json!({})),
    ]);
    let kept = [
        world.delete("ConfigMap", "kube-root-ca.crt"),
        world.delete("Secret", "robot-token-x"),
        world.delete("ServiceAccount", "default"),
    ];
    let plan = world.plan(&kept, &Options::default());
    assert!(
        plan.items.iter().all(|item| item.verdict == Verdict::Skip && !item.why.is_empty()),
        "{:?}",
        verdicts(&plan)
    );
}

#[test]
fn what_was_kept_by_name_only_is_blocked_and_stops_nothing_else() {
    let mut world = World::with(&[("ConfigMap", "a", json!({})), ("ConfigMap", "b", json!({}))]);
    let mut kept = [world.delete("ConfigMap", "a"), world.delete("ConfigMap", "b")];
    kept[0].body = Value::Null;
    let options = Options { on_conflict: OnConflict::Skip, ..Options::default() };
    assert_eq!(
        verdicts(&world.plan(&kept, &options)),
        ["Blocked ConfigMap shop/a", "Create ConfigMap shop/b"]
    );
}

#[test]
fn a_version_that_is_gone_is_rewritten_where_that_means_the_same() {
    let old = |kind: &str, version: &str| json!({"apiVersion": version, "kind": kind});
    for (kind, version, expected) in [
        ("CronJob.batch", "batch/v1beta1", "Create CronJob.batch shop/a"),
        ("Cache.example.com", "example.com/v1", "Create Cache.example.com shop/a"),
        (
            "Ingress.networking.k8s.io",
            "networking.k8s.io/v1beta1",
            "Blocked Ingress.networking.k8s.io shop/a",
        ),
    ] {
        let mut world = World::with(&[(kind, "a", json!({}))]);
        let mut kept = world.delete(kind, "a");
        merge(&mut kept.body, &old(kind.split('.').next().unwrap(), version));
        let plan = world.plan(&[kept], &Options::default());
        assert_eq!(verdicts(&plan), [expected]);
    }
}

#[test]
fn a_claim_keeps_its_volume_only_where_that_waits_for_it() {
    let claim = json!({"spec": {"volumeName": "pv1"}});
    let volume =
        |claim_ref: Value| body("PersistentVolume", "pv1", &json!({"spec": {"claimRef": claim_ref}}));
    let mut world = World::with(&[("PersistentVolumeClaim", "disk", claim)]);
    let kept = world.delete("PersistentVolumeClaim", "disk");
    let named = |plan: &RestorePlan| plan.items[0].body.as_ref().unwrap()["spec"]["volumeName"].clone();
    for (claim_ref, keeps) in [
        (json!({"namespace": "shop", "name": "disk", "uid": "old"}), false),
        (json!({"namespace": "shop", "name": "disk"}), true),
        (json!({"namespace": "shop", "name": "else"}), false),
        (Value::Null, true),
    ] {
        world.put(&key("PersistentVolume", "pv1"), volume(claim_ref.clone()));
        let plan = world.plan(std::slice::from_ref(&kept), &Options::default());
        assert_eq!(named(&plan) == "pv1", keeps, "{claim_ref}");
    }
}

/// A selection, what is at its places by now, and options.
fn cases() -> impl Strategy<Value = (World, Vec<Kept>, Options)> {
    let object = (0usize..6, 0usize..4, 0usize..4, any::<bool>());
    let conflicts = prop_oneof![
        Just(OnConflict::Skip),
        Just(OnConflict::Update),
        Just(OnConflict::Recreate),
        Just(OnConflict::Rename)
    ];
    let options = (conflicts, any::<[bool; 4]>(), proptest::option::of(Just("shop".to_owned())));
    (proptest::collection::vec(object, 1..8), options).prop_map(|(objects, (on_conflict, flags, namespace))| {
        let all = ["ConfigMap", "Service", "PersistentVolumeClaim", "Deployment.apps", "Job.batch", "ServiceAccount"];
        let mut world = World::with(&[]);
        let mut kept: Vec<Kept> = Vec::new();
        for (kind, name, now, finalizer) in objects {
            let (kind, name) = (all[kind], ["a", "b", "default", "a-restored"][name]);
            let mut rest = json!({"spec": {"ports": [{"port": 80, "nodePort": 30080}], "value": 1}, "data": {"k": "1"},
                "metadata": {"labels": {"l": "1"}}});
            if finalizer {
                rest["metadata"]["finalizers"] = json!(["x/y"]);
            }
            if let Some(owner) = kept.last().filter(|_| finalizer) {
                let gk = owner.key.gk.to_string();
                merge(&mut rest, &owned_by(&gk, &owner.key.name, &owner.uid, false));
            }
            world.put(&key(kind, name), body(kind, name, &rest));
            kept.push(world.delete(kind, name));
            let mut now_body = body(kind, name, &rest);
            match now {
                0 => now_body["data"] = json!({"k": "2"}),
                1 => now_body["spec"]["value"] = json!(2),
                2 => {}
                _ => continue,
            }
            if let Some(metadata) = now_body["metadata"].as_object_mut() {
                metadata.remove("ownerReferences");
            }
            world.put(&key(kind, name), now_body);
        }
        let [with_dependencies, keep_finalizers, force, other_cluster] = flags;
        world.other_cluster = other_cluster;
        let options = Options { namespace, on_conflict, with_dependencies, keep_finalizers, force, ..Options::default() };
        (world, kept, options)
    })
}

proptest! {
    #[test]
    fn planning_what_was_carried_out_finds_everything_in_place((mut world, kept, options) in cases()) {
        let first = world.plan(&kept, &options);
        prop_assert_eq!(&first, &world.plan(&kept, &options), "the same input gives the same plan");
        world.carry_out(&first);
        for (before, after) in first.items.iter().map(|item| (item.tombstone, item)).map(|(id, before)| {
            let again = world.plan(&kept, &options);
            (before.clone(), again.items.into_iter().find(|item| item.tombstone == id).unwrap())
        }) {
            let expected = if before.verdict.writes() { Verdict::InPlace } else { before.verdict };
            prop_assert_eq!(after.verdict, expected, "{:?} then {:?}", before, after);
        }
    }
}
