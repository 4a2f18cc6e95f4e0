//! Clusters that come and go.

use super::*;

pub(super) fn a_forgotten_cluster_leaves_no_row_and_its_name_is_free<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let clusters = within(&mut store, |store| {
        let mut clusters = ["a", "b"].map(|cluster| store.create_cluster(&name(cluster), 1).unwrap());
        for cluster in &mut clusters {
            cluster.uid = Some(Uid::new(&format!("uid-of-{}", cluster.name)));
            cluster.served = Bytes::from_static(b"[1]");
            store.put_cluster(cluster).unwrap();
            store.put_budget("p", cluster.id, "{}").unwrap();
            store
                .put_container_gone(cluster.id, &key("Namespace", "", "n"), 9, &ResourceVersion::new("7"), 0)
                .unwrap();
        }
        clusters
    });
    let [a, b] = &clusters;
    within(&mut store, |store| store.forget_cluster(b.id).unwrap());
    assert_eq!(store.clusters().unwrap(), std::slice::from_ref(a));
    assert_eq!(store.budgets().unwrap(), [("p".to_owned(), a.id, "{}".to_owned())]);
    assert_eq!(store.container_gone(b.id, &key("Namespace", "", "n")).unwrap(), None);
    let again = within(&mut store, |store| store.create_cluster(&name("b"), 2).unwrap());
    assert!(again.id > b.id && again.uid.is_none());
    within(&mut store, |store| store.put_cluster(&ClusterRow { uid: b.uid.clone(), ..again }).unwrap());
}
