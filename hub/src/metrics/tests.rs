//! The port for scrapers and probes, over a real store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use futures::future::join_all;
use lockstep_engine::ClusterName;
use tonic::codegen::Service as _;

use super::*;
use crate::problem::Problems;
use crate::pulse::Pulse;
use crate::seal::HubKey;
use crate::store::conformance::{full_placement, key, within};
use crate::store::sqlite::SqliteStore;
use crate::store::{Reader, Store as _};

/// The port for scrapers and probes.
struct Probed {
    router: Router,
    ready: Arc<AtomicBool>,
    problems: Problems,
    _dir: tempfile::TempDir,
}

fn probed() -> Probed {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let mut store = SqliteStore::open(&path, HubKey::from_bytes([7; 32]).sealer()).unwrap();
    within(&mut store, |store| {
        let target = store.create_cluster(&ClusterName::new("cluster-b").unwrap(), 1).unwrap().id;
        for name in ["web-0", "web-1"] {
            let row = full_placement(target.0, key("Deployment", "shop", name));
            store.put_placement(&row).unwrap();
        }
    });
    let readers = store.readers();
    let ready = Arc::new(AtomicBool::new(true));
    let problems = Problems::default();
    let router = router(Scraped {
        registry: Arc::default(),
        readers: Arc::new(move || Ok(Box::new(readers.open()?) as Box<dyn Reader>)),
        problems: problems.clone(),
        pulse: Pulse::default(),
        database: path,
        ready: ready.clone(),
    });
    Probed { router, ready, problems, _dir: dir }
}

impl Probed {
    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = self.router.clone().into_service().call(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }
}

/// Each scrape has figures of its own: none sees them while another empties them.
#[tokio::test(flavor = "multi_thread")]
async fn scrapes_at_the_same_time_show_the_same() {
    let probed = probed();
    let (status, first) = probed.get("/metrics").await;
    assert!(status == StatusCode::OK && first.ends_with("# EOF\n"), "{first}");
    assert!(first.contains("lockstep_hub_placements{"), "{first}");
    let figures = |text: &str| {
        let kept = text.lines().filter(|line| line.starts_with("lockstep_hub_placements{"));
        kept.map(str::to_owned).collect::<Vec<_>>()
    };
    let scrapes = (0..64).map(|_| async { figures(&probed.get("/metrics").await.1) });
    for seen in join_all(scrapes).await {
        assert_eq!(seen, figures(&first));
    }
}

#[tokio::test]
async fn probes_say_what_the_hub_cannot_do() {
    let probed = probed();
    assert_eq!(probed.get("/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
    assert_eq!(probed.get("/readyz").await.0, StatusCode::OK);
    probed.problems.set(crate::space::FULL, "no room".to_owned(), "make room", true, 0);
    let (status, why) = probed.get("/readyz").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && why.contains("LS0228"), "{why}");
    probed.ready.store(false, Ordering::Release);
    let (status, why) = probed.get("/readyz").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && why.contains("starting"), "{why}");
}
