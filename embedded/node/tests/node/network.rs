//! Ports, Services and names.

use std::net::SocketAddr;
use std::time::Duration;

use meshgate_store::{GroupResource, PodAccess, Subresource, WriteOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Scene, Test};

pub const TESTS: &[(&str, Test)] = &[
    ("port_forward_reaches_the_loopback", |s| Box::pin(forward(s))),
    ("a_service_balances_and_has_a_name", |s| Box::pin(service(s))),
    ("a_load_balancer_keeps_the_client_or_not", |s| Box::pin(load_balancer(s))),
    ("a_headless_service_names_its_pods", |s| Box::pin(headless(s))),
];

fn web() -> Value {
    json!({"name": "main", "image": "test/web", "readinessProbe": {"httpGet": {"path": "/", "port": 8080}}})
}

/// Fetches a URL with Python inside a pod's container: the answer, or what went wrong.
async fn get(scene: &Scene, pod: &str, url: &str) -> String {
    let script = "import sys, urllib.request as r\ntry: print(r.urlopen(sys.argv[1], timeout=5).read().decode())\nexcept Exception as e: print('failed:', e)";
    scene.exec(pod, &["python3", "-c", script, url]).await.1.trim().to_owned()
}

impl Scene {
    /// A Service and its EndpointSlice, as the controller would have written it, known to the network.
    async fn service(&self, name: &str, spec: Value, pods: &[&str]) -> Value {
        let mut spec = spec;
        spec["ports"] = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
        let service = self.create(
            "",
            "services",
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec,
            }),
        );
        let address = |pod: &&str| {
            let pod = self.store.get(&GroupResource::new("", "pods"), &self.namespace, pod).unwrap();
            json!({"addresses": [pod["status"]["podIP"]], "conditions": {"ready": true}, "hostname": pod["metadata"]["name"]})
        };
        self.create(
            "discovery.k8s.io",
            "endpointslices",
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name}},
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
                "endpoints": pods.iter().map(address).collect::<Vec<_>>(),
            }),
        );
        self.synced().await;
        (*service).clone()
    }

    async fn synced(&self) {
        let synced = self.node.synced(self.store.revision());
        tokio::time::timeout(Duration::from_secs(10), synced).await.expect("the network catches up");
    }
}

async fn forward(scene: Scene) {
    scene.pod("web", json!({"containers": [web()]}));
    scene.ready("web").await;
    assert!(scene.node.forward(&scene.namespace, "web", 8080).await.is_ok());
    let refused = scene.node.forward(&scene.namespace, "web", 81).await.err().unwrap();
    assert!(refused.message.contains("dial tcp4 127.0.0.1:81: connect: Connection refused"), "{}", refused.message);
    scene.delete("web", Some(0));
}

async fn service(scene: Scene) {
    for name in ["one", "two"] {
        scene.pod(name, json!({"containers": [web()]}));
    }
    scene.ready("one").await;
    scene.ready("two").await;
    let service = scene.service("web", json!({}), &["one", "two"]).await;
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let answer = get(&scene, "one", "http://web").await;
        seen.insert(answer.split(' ').next().unwrap().to_owned());
        if seen.len() == 2 {
            break;
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["one", "two"]);
    for url in [
        format!("http://{address}/"),
        format!("http://web.{}/", scene.namespace),
        format!("http://web.{}.svc.cluster.local/", scene.namespace),
    ] {
        assert!(!get(&scene, "two", &url).await.starts_with("failed"), "{url}");
    }
    assert!(get(&scene, "one", "http://absent/").await.contains("Name or service not known"));

    // Without endpoints, connections are refused and do not hang.
    scene
        .store
        .modify(
            &GroupResource::new("discovery.k8s.io", "endpointslices"),
            &scene.namespace,
            "web-1",
            Subresource::Main,
            &WriteOptions::default(),
            &mut |slice| {
                slice["endpoints"] = json!([]);
                Ok(())
            },
        )
        .unwrap();
    scene.synced().await;
    let refused = get(&scene, "one", &format!("http://{address}/")).await;
    assert!(refused.contains("Connection refused"), "{refused}");
    scene.delete("one", Some(0));
    scene.delete("two", Some(0));
}

async fn load_balancer(scene: Scene) {
    scene.pod("edge", json!({"containers": [web()]}));
    scene.ready("edge").await;
    for (name, policy, ip) in [("local", "Local", "203.0.113.20"), ("cluster", "Cluster", "203.0.113.21")] {
        scene.service(name, json!({"type": "LoadBalancer", "externalTrafficPolicy": policy}), &["edge"]).await;
        scene
            .store
            .modify(
                &GroupResource::new("", "services"),
                &scene.namespace,
                name,
                Subresource::Status,
                &WriteOptions::default(),
                &mut |service| {
                    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
                    Ok(())
                },
            )
            .unwrap();
        scene.synced().await;
        let to: SocketAddr = format!("{ip}:80").parse().unwrap();
        let mut stream = scene.outside.connect(to).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let kept = answer.contains("198.51.100.");
        assert_eq!(kept, policy == "Local", "{policy}: {answer}");
    }
    scene.delete("edge", Some(0));
}

async fn headless(scene: Scene) {
    scene.pod("db-0", json!({"containers": [web()]}));
    let pod = scene.ready("db-0").await;
    scene.service("db", json!({"clusterIP": "None"}), &["db-0"]).await;
    let ip = pod["status"]["podIP"].as_str().unwrap();
    let dashed = ip.replace('.', "-");
    for name in ["db".to_owned(), "db-0.db".to_owned(), format!("{dashed}.{}.pod.cluster.local", scene.namespace)] {
        let answer = get(&scene, "db-0", &format!("http://{name}:8080/")).await;
        assert!(answer.starts_with("db-0 "), "{name}: {answer}");
    }
    scene.delete("db-0", Some(0));
}
