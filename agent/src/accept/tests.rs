use super::*;

fn list(entries: &str) -> Result<AcceptList, AcceptError> {
    AcceptList::parse(&serde_json::from_str::<Vec<AcceptEntry>>(entries).unwrap(), BTreeSet::new())
}

fn check(list: &AcceptList, verb: Verb, group: &str, kind: &str, namespace: &str) -> bool {
    let gk = GroupKind::new(group, kind);
    let plural = format!("{}s", kind.to_lowercase());
    let subject = Subject { gk: &gk, plural: Some(&plural), namespace, name: "x" };
    list.check(subject, verb).is_ok()
}

#[test]
fn i16_a_star_never_means_what_must_be_named() {
    let list = AcceptList::parse(&AcceptEntry::everything(), BTreeSet::new()).unwrap();
    for (group, kind, namespace, expected) in [
        ("apps", "Deployment", "shop", true),
        ("", "Secret", "shop", true),
        ("", "Secret", "kube-system", false),
        ("", "ConfigMap", "lockstep-system", false),
        ("example.com", "Thing", "", true),
        ("rbac.authorization.k8s.io", "Role", "shop", false),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding", "", false),
        ("apiextensions.k8s.io", "CustomResourceDefinition", "", false),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", "", false),
        ("apiregistration.k8s.io", "APIService", "", false),
    ] {
        for verb in [Verb::Create, Verb::Update, Verb::Delete] {
            assert_eq!(check(&list, verb, group, kind, namespace), expected, "{verb} {kind} in {namespace}");
        }
    }
}

#[test]
fn i16_named_kinds_namespaces_and_verbs_are_accepted() {
    let list = list(
        r#"[
        {"kinds": ["roles.rbac.authorization.k8s.io"], "namespaces": ["shop"], "verbs": ["create", "update"]},
        {"kinds": ["secret"], "namespaces": ["kube-system"], "verbs": ["update"]},
        {"kinds": ["Deployment.apps", "Ingress.networking.k8s.io"]},
        {"kinds": ["RoleBinding"], "namespaces": ["dev"]}
    ]"#,
    )
    .unwrap();
    let rbac = "rbac.authorization.k8s.io";
    assert!(check(&list, Verb::Create, rbac, "Role", "shop"));
    assert!(!check(&list, Verb::Delete, rbac, "Role", "shop"));
    assert!(!check(&list, Verb::Create, rbac, "Role", "dev"));
    assert!(!check(&list, Verb::Create, rbac, "RoleBinding", "shop"));
    assert!(check(&list, Verb::Create, rbac, "RoleBinding", "dev"), "the kind alone is enough");
    assert!(!check(&list, Verb::Create, "example.com", "RoleBinding", "dev"));
    assert!(check(&list, Verb::Update, "", "Secret", "kube-system"));
    assert!(!check(&list, Verb::Update, "", "Secret", "shop"));
    assert!(check(&list, Verb::Delete, "apps", "Deployment", "dev"));
    assert!(!check(&list, Verb::Delete, "apps", "StatefulSet", "dev"));
    assert!(check(&list, Verb::Create, "extensions", "Ingress", "dev"), "one object in two groups");
}

#[test]
fn a_namespace_needs_its_own_name() {
    let list = AcceptList::parse(&AcceptEntry::everything(), BTreeSet::new()).unwrap();
    let gk = GroupKind::new("", "Namespace");
    let named = |name| Subject { gk: &gk, plural: None, namespace: "", name };
    assert!(list.check(named("shop"), Verb::Delete).is_ok());
    assert!(list.check(named("kube-system"), Verb::Delete).is_err());
}

#[test]
fn i16_a_star_reads_no_secrets_and_a_verb_list_without_read_reads_nothing() {
    let star = AcceptList::parse(&AcceptEntry::everything(), BTreeSet::new()).unwrap();
    assert!(check(&star, Verb::Read, "", "ConfigMap", "shop"));
    assert!(check(&star, Verb::Read, "rbac.authorization.k8s.io", "Role", "shop"));
    assert!(!check(&star, Verb::Read, "", "Secret", "shop"));
    assert!(!check(&star, Verb::Read, "", "ConfigMap", "kube-system"));
    assert!(!check(&star, Verb::Read, "", "ConfigMap", "lockstep-system"));
    let narrow = list(r#"[{"kinds": ["ConfigMap"], "namespaces": ["shop"], "verbs": ["create"]}]"#).unwrap();
    assert!(!check(&narrow, Verb::Read, "", "ConfigMap", "shop"));
    let named = list(r#"[{"kinds": ["Secret"], "namespaces": ["shop"], "verbs": ["read"]}]"#).unwrap();
    assert!(check(&named, Verb::Read, "", "Secret", "shop"));
    assert!(!check(&named, Verb::Update, "", "Secret", "shop"));
    assert!(!check(&named, Verb::Read, "", "Secret", "dev"));
}

#[test]
fn i16_the_agents_own_namespace_must_be_named() {
    let own = || BTreeSet::from(["agents".to_owned()]);
    let list = AcceptList::parse(&AcceptEntry::everything(), own()).unwrap();
    for verb in all_verbs() {
        assert!(!check(&list, verb, "", "ConfigMap", "agents"), "{verb}");
    }
    let entries = r#"[{"kinds": ["*"], "namespaces": ["agents"]}]"#;
    let list = AcceptList::parse(&serde_json::from_str::<Vec<AcceptEntry>>(entries).unwrap(), own()).unwrap();
    assert!(check(&list, Verb::Create, "", "ConfigMap", "agents"));
}

#[test]
fn i16_what_may_be_written_is_read_before_a_delete_but_no_unknown_value_of_a_secret() {
    let star = AcceptList::parse(&AcceptEntry::everything(), BTreeSet::new()).unwrap();
    let deletes = list(r#"[{"kinds": ["*"], "namespaces": ["shop"], "verbs": ["delete"]}]"#).unwrap();
    let scope = |list: &AcceptList, kind: &str, namespace| {
        let gk = GroupKind::new("", kind);
        list.read_scope(Subject { gk: &gk, plural: None, namespace, name: "x" }).ok()
    };
    assert_eq!(scope(&star, "ConfigMap", "shop"), Some(ReadScope::Everything));
    assert_eq!(scope(&star, "Secret", "shop"), Some(ReadScope::WrittenByUs));
    assert_eq!(scope(&star, "Secret", "kube-system"), None);
    assert_eq!(scope(&deletes, "ConfigMap", "shop"), Some(ReadScope::Everything));
    assert_eq!(scope(&deletes, "ConfigMap", "dev"), None);
}

#[test]
fn the_refusal_says_what_to_add() {
    let list = AcceptList::parse(&AcceptEntry::everything(), BTreeSet::new()).unwrap();
    let gk = GroupKind::new("rbac.authorization.k8s.io", "Role");
    let subject = Subject { gk: &gk, plural: None, namespace: "shop", name: "reader" };
    let said = list.check(subject, Verb::Create).unwrap_err();
    assert_eq!(
        said,
        "LS0310: this cluster's agent does not accept to create Role.rbac.authorization.k8s.io reader in namespace \
         shop; to allow it, add to `accept` in the agent's configuration: { kinds: \
         [\"Role.rbac.authorization.k8s.io\"], namespaces: [\"shop\"], verbs: [create] }"
    );
    let entry =
        r#"[{"kinds": ["Role.rbac.authorization.k8s.io"], "namespaces": ["shop"], "verbs": ["create"]}]"#;
    assert!(self::list(entry).unwrap().check(subject, Verb::Create).is_ok());
}

#[test]
fn bad_entries_are_named() {
    let error = |entries| list(entries).unwrap_err().to_string();
    assert!(error(r#"[{"kinds": []}]"#).starts_with("accept[0].kinds: it is empty"));
    assert!(
        error(r#"[{"kinds": ["*"]}, {"kinds": ["*.apps"]}]"#).starts_with("accept[1].kinds: `*.apps` is no")
    );
    assert!(error(r#"[{"kinds": ["Secret."]}]"#).contains("`Secret.` is no kind"));
    assert!(error(r#"[{"kinds": ["*"], "namespaces": ["Shop"]}]"#).contains("`Shop` is no namespace"));
    assert!(error(r#"[{"kinds": ["*"], "verbs": []}]"#).starts_with("accept[0].verbs"));
}

/// Ten lines of configuration, ten things that a hub which was taken over asks for, ten refusals.
#[test]
fn i16_ten_attacks_are_refused_and_say_what_they_would_need() {
    let list = list(
        r#"[
            {"kinds": ["*"], "namespaces": ["shop"]},
            {
                "kinds": ["ConfigMap", "Deployment.apps"],
                "namespaces": ["*"],
                "verbs": ["read", "create", "update"]
            },
            {"kinds": ["Secret"], "namespaces": ["shop"],
             "verbs": ["read"]}
        ]"#,
    )
    .unwrap();
    let rbac = "rbac.authorization.k8s.io";
    for (attack, verb, group, kind, namespace) in [
        ("read the cloud's credentials", Verb::Read, "", "Secret", "kube-system"),
        ("read a tenant's Secrets", Verb::Read, "", "Secret", "dev"),
        ("read the agent's token", Verb::Read, "", "Secret", "lockstep-system"),
        ("rewrite the agent's accept list", Verb::Update, "", "ConfigMap", "lockstep-system"),
        ("run as the agent's ServiceAccount", Verb::Create, "apps", "Deployment", "lockstep-system"),
        ("run among the control plane", Verb::Create, "apps", "Deployment", "kube-system"),
        ("become cluster-admin", Verb::Create, rbac, "ClusterRoleBinding", ""),
        ("grant rights in a namespace", Verb::Create, rbac, "RoleBinding", "shop"),
        (
            "see every request",
            Verb::Create,
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration",
            "",
        ),
        ("delete what it may only update", Verb::Delete, "apps", "Deployment", "dev"),
    ] {
        let gk = GroupKind::new(group, kind);
        let plural = format!("{}s", kind.to_lowercase());
        let subject = Subject { gk: &gk, plural: Some(&plural), namespace, name: "x" };
        let said = list.check(subject, verb).expect_err(attack);
        let entry = format!(
            r#"{{ kinds: ["{gk}"], namespaces: ["{}"], verbs: [{verb}] }}"#,
            if namespace.is_empty() { "*" } else { namespace }
        );
        assert!(said.starts_with("LS0310: ") && said.ends_with(&entry), "{attack}: {said}");
    }
    assert!(
        check(&list, Verb::Read, "", "Secret", "shop")
            && check(&list, Verb::Create, "apps", "Deployment", "dev")
    );
}
