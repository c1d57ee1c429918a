//! The controllers together, over a real store. A fake node makes bound pods ready and takes deleted ones away.

use std::time::Duration;

use meshgate_store::{DeleteOptions, GroupResource, Object, Selectors, Store, Subresource, WriteOptions};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::objects::{name, namespace, resources, str_at};
use crate::{Config, start};

/// How long anything may take. The controllers need milliseconds; a busy machine may need more.
const DEADLINE: Duration = Duration::from_secs(20);

struct Cluster {
    store: Store,
    tasks: JoinSet<()>,
}

impl Cluster {
    /// A cluster with one node whose pods become ready unless their image is `broken`.
    fn new() -> Self {
        let store = Store::new();
        let mut tasks =
            start(store.clone(), Config { ca_pem: "PEM".into(), ..Config::default() }, CancellationToken::new());
        tasks.spawn(node(store.clone()));
        let node = json!({"metadata": {"name": "meshgate", "labels": {"kubernetes.io/os": "linux"}}});
        store.create(&resources::nodes(), "", node, &WriteOptions::default()).unwrap();
        Self { store, tasks }
    }

    fn create(&self, resource: GroupResource, object: Value) -> Object {
        self.store.create(&resource, "default", object, &WriteOptions::default()).unwrap()
    }

    fn modify(&self, resource: GroupResource, name: &str, mut change: impl FnMut(&mut Value)) -> Object {
        let mut change = |object: &mut Value| {
            change(object);
            Ok(())
        };
        let options = WriteOptions::default();
        self.store.modify(&resource, "default", name, Subresource::Main, &options, &mut change).unwrap()
    }

    fn get(&self, resource: GroupResource, name: &str) -> Option<Object> {
        self.store.get(&resource, "default", name).ok()
    }

    fn list(&self, resource: GroupResource, labels: &str) -> Vec<Object> {
        let selectors = Selectors { labels: labels.into(), fields: String::new() };
        self.store.list(&resource, Some("default"), &selectors).unwrap().items
    }

    fn running_pods(&self, labels: &str) -> Vec<Object> {
        let ready = |pod: &Object| crate::pods::is_ready(pod) && crate::pods::is_active(pod);
        self.list(resources::pods(), labels).into_iter().filter(ready).collect()
    }

    fn delete(&self, resource: GroupResource, namespace: &str, name: &str, propagation: &str) {
        let options = DeleteOptions { propagation: Some(propagation.into()), ..DeleteOptions::default() };
        self.store.delete(&resource, namespace, name, &options).unwrap();
    }

    /// Waits until a condition holds.
    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            let pods = self.list(resources::pods(), "");
            panic!("not in time: {what}; {} tasks, pods: {pods:#?}", self.tasks.len());
        }
    }

    async fn default_account(&self) {
        self.until("the default service account", || self.get(resources::service_accounts(), "default").is_some())
            .await;
    }

    async fn rolled_out(&self, name: &str) {
        self.until("the rollout", || {
            let Some(deployment) = self.get(resources::deployments(), name) else { return false };
            let (spec, status) = (&deployment["spec"], &deployment["status"]);
            status["observedGeneration"] == deployment["metadata"]["generation"]
                && ["replicas", "updatedReplicas", "availableReplicas"]
                    .iter()
                    .all(|field| status[*field] == spec["replicas"])
                && crate::objects::condition(status, "Progressing")
                    .is_some_and(|c| c["reason"] == "NewReplicaSetAvailable")
        })
        .await;
    }
}

/// Makes bound pods ready, removes deleted ones.
async fn node(store: Store) {
    let pods = resources::pods();
    let mut watch = store.watch(&pods, None, &Selectors::default(), meshgate_store::Start::Now).unwrap();
    let mut count = 0;
    while let Some(event) = watch.next().await {
        let (meshgate_store::Event::Added(pod) | meshgate_store::Event::Modified(pod)) = event else { continue };
        if !str_at(&pod, "/metadata/deletionTimestamp").is_empty() {
            let _ = store.remove(&pods, namespace(&pod), name(&pod));
        } else if !str_at(&pod, "/spec/nodeName").is_empty() && str_at(&pod, "/status/podIP").is_empty() {
            count += 1;
            let broken = str_at(&pod, "/spec/containers/0/image") == "broken:1";
            let once = str_at(&pod, "/spec/containers/0/image") == "once:1";
            let mut change = |pod: &mut Value| {
                pod["status"]["podIP"] = json!(format!("10.244.0.{count}"));
                pod["status"]["phase"] = json!(if once { "Succeeded" } else { "Running" });
                let ready = if broken || once { "False" } else { "True" };
                pod["status"]["conditions"] =
                    json!([{"type": "Ready", "status": ready, "lastTransitionTime": crate::time::now()}]);
                Ok(())
            };
            let options = WriteOptions::default();
            let _ = store.modify(&pods, namespace(&pod), name(&pod), Subresource::Status, &options, &mut change);
        }
    }
}

fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]},
    })
}

fn deployment(app: &str, replicas: i64) -> Value {
    json!({
        "metadata": {"name": app},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": template(app, "web:1")},
    })
}

#[tokio::test]
async fn every_namespace_gets_its_account_and_certificate() {
    let cluster = Cluster::new();
    cluster.default_account().await;
    cluster.until("the certificate", || cluster.get(resources::config_maps(), "kube-root-ca.crt").is_some()).await;
    assert_eq!(cluster.get(resources::config_maps(), "kube-root-ca.crt").unwrap()["data"]["ca.crt"], "PEM");
    cluster.delete(resources::service_accounts(), "default", "default", "Background");
    cluster.default_account().await;
}

#[tokio::test]
async fn a_deployment_becomes_ready_pods() {
    let cluster = Cluster::new();
    cluster.create(resources::deployments(), deployment("web", 3));
    cluster.rolled_out("web").await;
    let pods = cluster.running_pods("app=web");
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|pod| str_at(pod, "/spec/nodeName") == "meshgate"));
    let deployment = cluster.get(resources::deployments(), "web").unwrap();
    assert_eq!(deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    let sets = cluster.list(resources::replica_sets(), "app=web");
    assert_eq!(sets.len(), 1);
    let hash = str_at(&sets[0], "/metadata/labels/pod-template-hash");
    assert_eq!(name(&sets[0]), format!("web-{hash}"));
    assert!(pods.iter().all(|pod| str_at(pod, "/metadata/labels/pod-template-hash") == hash));
    let events = cluster.list(resources::events(), "");
    for reason in ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled"] {
        assert!(events.iter().any(|event| event["reason"] == reason), "no event {reason}");
    }
}

#[tokio::test]
async fn scaling_and_lost_pods_are_made_good() {
    let cluster = Cluster::new();
    cluster.create(resources::deployments(), deployment("web", 2));
    cluster.rolled_out("web").await;
    cluster.modify(resources::deployments(), "web", |web| web["spec"]["replicas"] = json!(4));
    cluster.rolled_out("web").await;
    assert_eq!(cluster.running_pods("app=web").len(), 4);
    cluster.modify(resources::deployments(), "web", |web| web["spec"]["replicas"] = json!(1));
    cluster.until("one pod", || cluster.list(resources::pods(), "app=web").len() == 1).await;
    cluster.rolled_out("web").await;
    let lost = name(&cluster.running_pods("app=web")[0]).to_owned();
    cluster.delete(resources::pods(), "default", &lost, "Background");
    cluster.until("a new pod", || cluster.running_pods("app=web").iter().any(|pod| name(pod) != lost)).await;
    assert_eq!(cluster.list(resources::replica_sets(), "app=web").len(), 1);
}

#[tokio::test]
async fn a_rollout_goes_forth_and_back() {
    let cluster = Cluster::new();
    cluster.create(resources::deployments(), deployment("web", 3));
    cluster.rolled_out("web").await;
    let first = name(&cluster.list(resources::replica_sets(), "app=web")[0]).to_owned();
    cluster.modify(resources::deployments(), "web", |web| web["spec"]["template"] = template("web", "web:2"));
    cluster.rolled_out("web").await;
    let pods = cluster.running_pods("app=web");
    assert!(pods.len() == 3 && pods.iter().all(|pod| str_at(pod, "/spec/containers/0/image") == "web:2"));
    assert_eq!(cluster.list(resources::replica_sets(), "app=web").len(), 2);
    cluster.modify(resources::deployments(), "web", |web| web["spec"]["template"] = template("web", "web:1"));
    cluster.rolled_out("web").await;
    let back = cluster.get(resources::replica_sets(), &first).unwrap();
    assert_eq!(back["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(back["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1");
    let web = cluster.get(resources::deployments(), "web").unwrap();
    assert_eq!(web["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(cluster.list(resources::replica_sets(), "app=web").len(), 2);
}

#[tokio::test]
async fn a_broken_rollout_keeps_the_old_pods_and_a_pause_holds_it() {
    let cluster = Cluster::new();
    cluster.create(resources::deployments(), deployment("web", 2));
    cluster.rolled_out("web").await;
    cluster.modify(resources::deployments(), "web", |web| web["spec"]["template"] = template("web", "broken:1"));
    cluster.until("a broken pod", || cluster.list(resources::pods(), "app=web").len() == 3).await;
    cluster
        .until("the status", || {
            let web = cluster.get(resources::deployments(), "web").unwrap();
            web["status"]["updatedReplicas"] == 1 && web["status"]["availableReplicas"] == 2
        })
        .await;
    cluster.modify(resources::deployments(), "web", |web| web["spec"]["paused"] = json!(true));
    cluster.modify(resources::deployments(), "web", |web| web["spec"]["template"] = template("web", "web:3"));
    cluster
        .until("the pause to be seen", || {
            let web = cluster.get(resources::deployments(), "web").unwrap();
            web["status"]["observedGeneration"] == web["metadata"]["generation"]
        })
        .await;
    assert_eq!(cluster.list(resources::replica_sets(), "app=web").len(), 2, "no set for a paused template");
    cluster.modify(resources::deployments(), "web", |web| web["spec"]["paused"] = json!(false));
    cluster.rolled_out("web").await;
    assert!(cluster.running_pods("app=web").iter().all(|pod| str_at(pod, "/spec/containers/0/image") == "web:3"));
}

#[tokio::test]
async fn recreate_lets_the_old_pods_end_first() {
    let cluster = Cluster::new();
    let mut web = deployment("web", 2);
    web["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.create(resources::deployments(), web);
    cluster.rolled_out("web").await;
    let mut watch = cluster
        .store
        .watch(&resources::pods(), None, &Selectors::default(), meshgate_store::Start::After(cluster.store.revision()))
        .unwrap();
    cluster.modify(resources::deployments(), "web", |web| web["spec"]["template"] = template("web", "web:2"));
    cluster.rolled_out("web").await;
    let (mut gone, mut before) = (0, None);
    while let Some(event) = watch.try_next() {
        match event {
            meshgate_store::Event::Deleted(_) => gone += 1,
            meshgate_store::Event::Added(_) if before.is_none() => before = Some(gone),
            _ => {}
        }
    }
    assert_eq!(before, Some(2), "both old pods were gone before the first new one came");
}

#[tokio::test]
async fn slices_of_other_managers_are_left_alone() {
    const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
    let cluster = Cluster::new();
    let labels = json!({"kubernetes.io/service-name": "web", MANAGED_BY: "linkerd-external-workloads-controller"});
    let theirs = cluster.create(
        resources::endpoint_slices(),
        json!({
            "metadata": {"name": "theirs", "labels": labels}, "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["192.0.2.7"], "conditions": {"ready": true}}],
        }),
    );
    cluster.create(
        resources::services(),
        json!({
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
        }),
    );
    cluster.create(resources::deployments(), deployment("web", 1));
    let is_ours = |slice: &Object| slice["metadata"]["labels"][MANAGED_BY] == "endpointslice-controller.k8s.io";
    let has_pod = |slice: &Object| slice["endpoints"][0]["conditions"]["ready"] == true;
    let slices = || cluster.list(resources::endpoint_slices(), "kubernetes.io/service-name=web");
    cluster.until("a pod beside it", || slices().iter().any(|slice| is_ours(slice) && has_pod(slice))).await;
    assert_eq!(cluster.get(resources::endpoint_slices(), "theirs"), Some(theirs));
    cluster.delete(resources::deployments(), "default", "web", "Background");
    cluster.until("none beside it", || slices().iter().all(|slice| !is_ours(slice) || !has_pod(slice))).await;
    assert!(cluster.get(resources::endpoint_slices(), "theirs").is_some());
}

#[tokio::test]
async fn a_service_finds_its_pods() {
    let cluster = Cluster::new();
    let service = cluster.create(
        resources::services(),
        json!({
            "metadata": {"name": "web", "labels": {"team": "a"}},
            "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
        }),
    );
    cluster.create(resources::deployments(), deployment("web", 2));
    let slices = || cluster.list(resources::endpoint_slices(), "kubernetes.io/service-name=web");
    let ready = |slice: &Object| {
        let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints.iter().filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
    };
    cluster.until("two ready endpoints", || slices().first().is_some_and(|slice| ready(slice) == 2)).await;
    assert_eq!(slices().len(), 1);
    let slice = &slices()[0];
    assert_eq!(slice["ports"], json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"],
        "endpointslice-controller.k8s.io"
    );
    assert_eq!(slice["metadata"]["labels"]["team"], "a");
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], service["metadata"]["uid"]);
    let endpoint = &slice["endpoints"][0];
    assert_eq!(endpoint["conditions"], json!({"ready": true, "serving": true, "terminating": false}));
    assert_eq!(endpoint["nodeName"], "meshgate");
    assert_eq!(endpoint["targetRef"]["kind"], "Pod");
    let endpoints = cluster.get(resources::endpoints(), "web").unwrap();
    assert_eq!(endpoints["subsets"][0]["addresses"].as_array().unwrap().len(), 2);
    assert_eq!(endpoints["subsets"][0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
    cluster
        .until("an address", || {
            cluster.get(resources::services(), "web").unwrap()["status"]["loadBalancer"]["ingress"]
                == json!([{"ip": "203.0.113.10", "ipMode": "VIP"}])
        })
        .await;
    cluster.delete(resources::services(), "default", "web", "Background");
    cluster.until("no slices", || slices().is_empty() && cluster.get(resources::endpoints(), "web").is_none()).await;
}

#[tokio::test]
async fn a_terminating_pod_is_told_as_such() {
    let store = Store::new();
    let tasks = start(store.clone(), Config::default(), CancellationToken::new());
    let cluster = Cluster { store, tasks };
    cluster.default_account().await;
    cluster.create(resources::services(), json!({
        "metadata": {"name": "web"}, "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
    }));
    let mut pod =
        json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": template("web", "web:1")["spec"]});
    pod["spec"]["nodeName"] = json!("elsewhere");
    let pod = cluster.create(resources::pods(), pod);
    let status =
        json!({"phase": "Running", "podIP": "10.244.0.9", "conditions": [{"type": "Ready", "status": "True"}]});
    crate::objects::set_status(&cluster.store, &resources::pods(), &pod, &status).unwrap();
    let conditions = || {
        let slices = cluster.list(resources::endpoint_slices(), "kubernetes.io/service-name=web");
        slices.first().map(|slice| slice["endpoints"][0]["conditions"].clone()).unwrap_or_default()
    };
    cluster.until("a ready endpoint", || conditions()["ready"] == true).await;
    cluster.delete(resources::pods(), "default", "web", "Background");
    cluster
        .until("a terminating endpoint", || {
            conditions() == json!({"ready": false, "serving": true, "terminating": true})
        })
        .await;
    cluster.modify(resources::pods(), "web", |pod| pod["metadata"]["labels"] = json!({"app": "other"}));
    cluster.until("no endpoint", || conditions().is_null()).await;
}

#[tokio::test]
async fn owners_take_their_dependents_along_or_leave_them() {
    let cluster = Cluster::new();
    for name in ["background", "foreground", "orphaning"] {
        cluster.create(resources::deployments(), deployment(name, 1));
        cluster.rolled_out(name).await;
    }
    cluster.delete(resources::deployments(), "default", "background", "Background");
    assert!(cluster.get(resources::deployments(), "background").is_none(), "in the background the owner goes first");
    cluster.until("no pods", || cluster.list(resources::pods(), "app=background").is_empty()).await;
    cluster.delete(resources::deployments(), "default", "foreground", "Foreground");
    cluster.until("no owner", || cluster.get(resources::deployments(), "foreground").is_none()).await;
    assert!(cluster.list(resources::pods(), "app=foreground").is_empty(), "in the foreground it goes last");
    assert!(cluster.list(resources::replica_sets(), "app=foreground").is_empty());
    cluster.delete(resources::deployments(), "default", "orphaning", "Orphan");
    cluster.until("no owner", || cluster.get(resources::deployments(), "orphaning").is_none()).await;
    let set = &cluster.list(resources::replica_sets(), "app=orphaning")[0];
    assert!(crate::objects::items(set, "/metadata/ownerReferences").is_empty());
    assert_eq!(cluster.running_pods("app=orphaning").len(), 1);
}

#[tokio::test]
async fn custom_objects_own_and_are_owned() {
    let cluster = Cluster::new();
    let crd = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        }}}],
    }});
    let widgets = || GroupResource::new("example.com", "widgets");
    let crds = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    cluster.store.create(&crds, "", crd, &WriteOptions::default()).unwrap();
    let owner = cluster.create(widgets(), json!({"metadata": {"name": "owner"}}));
    let reference = crate::objects::controller_reference(&owner);
    let owned = |name: &str| json!({"metadata": {"name": name, "ownerReferences": [reference]}});
    cluster.create(widgets(), owned("part"));
    cluster.create(resources::config_maps(), owned("settings"));
    let mut strangers = owned("stranger");
    strangers["metadata"]["ownerReferences"][0]["uid"] = json!("no-such-uid");
    cluster.create(resources::config_maps(), strangers);
    cluster.until("no stranger", || cluster.get(resources::config_maps(), "stranger").is_none()).await;
    assert!(cluster.get(resources::config_maps(), "settings").is_some());
    cluster.delete(widgets(), "default", "owner", "Foreground");
    cluster
        .until("nothing left", || {
            cluster.list(widgets(), "").is_empty() && cluster.get(resources::config_maps(), "settings").is_none()
        })
        .await;
}

#[tokio::test]
async fn a_namespace_goes_with_all_it_holds() {
    let cluster = Cluster::new();
    let options = WriteOptions::default();
    cluster.store.create(&resources::namespaces(), "", json!({"metadata": {"name": "demo"}}), &options).unwrap();
    let account = || cluster.store.get(&resources::service_accounts(), "demo", "default").is_ok();
    cluster.until("the account", account).await;
    cluster.store.create(&resources::deployments(), "demo", deployment("web", 2), &options).unwrap();
    let pods = || cluster.store.list(&resources::pods(), Some("demo"), &Selectors::default()).unwrap().items;
    cluster.until("pods", || pods().iter().filter(|pod| crate::pods::is_ready(pod)).count() == 2).await;
    cluster.delete(resources::namespaces(), "", "demo", "Background");
    cluster.until("the end", || cluster.store.get(&resources::namespaces(), "", "demo").is_err()).await;
    for kind in cluster.store.resources().iter().filter(|kind| kind.namespaced) {
        let left = cluster.store.list(&kind.resource, Some("demo"), &Selectors::default()).unwrap().items;
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

#[tokio::test]
async fn a_job_runs_to_its_end() {
    let cluster = Cluster::new();
    cluster.default_account().await;
    let job = |name: &str, image: &str| {
        let mut template = template("job", image);
        template["spec"]["restartPolicy"] = json!("Never");
        json!({"metadata": {"name": name}, "spec": {"completions": 3, "parallelism": 2, "template": template}})
    };
    cluster.create(resources::jobs(), job("once", "once:1"));
    cluster
        .until("completion", || {
            let status = &cluster.get(resources::jobs(), "once").unwrap()["status"];
            crate::objects::is_true(status, "Complete")
                && status["succeeded"] == 3
                && status["completionTime"].is_string()
        })
        .await;
    assert_eq!(cluster.list(resources::pods(), "job-name=once").len(), 3);
}

#[tokio::test]
async fn daemon_sets_and_stateful_sets_make_their_pods() {
    let cluster = Cluster::new();
    cluster.default_account().await;
    let spec = |app: &str| json!({"selector": {"matchLabels": {"app": app}}, "template": template(app, "web:1")});
    cluster.create(resources::daemon_sets(), json!({"metadata": {"name": "agent"}, "spec": spec("agent")}));
    let mut set = json!({"metadata": {"name": "db"}, "spec": spec("db")});
    set["spec"]["replicas"] = json!(2);
    set["spec"]["serviceName"] = json!("db");
    cluster.create(resources::stateful_sets(), set);
    cluster
        .until("the agent", || cluster.get(resources::daemon_sets(), "agent").unwrap()["status"]["numberReady"] == 1)
        .await;
    cluster
        .until("both", || cluster.get(resources::stateful_sets(), "db").unwrap()["status"]["readyReplicas"] == 2)
        .await;
    let names: Vec<String> = cluster.list(resources::pods(), "app=db").iter().map(|pod| name(pod).to_owned()).collect();
    assert_eq!(names, ["db-0", "db-1"]);
    for (resource, name) in [(resources::daemon_sets(), "agent"), (resources::stateful_sets(), "db")] {
        cluster
            .modify(resource, name, |set| set["spec"]["template"]["spec"]["containers"][0]["image"] = json!("web:2"));
    }
    cluster
        .until("the new template", || {
            let pods = cluster.running_pods("");
            pods.len() == 3 && pods.iter().all(|pod| str_at(pod, "/spec/containers/0/image") == "web:2")
        })
        .await;
}

#[tokio::test]
async fn load_balancer_addresses_are_shared_out() {
    let cluster = Cluster::new();
    let service = |name: &str, asked: &str| {
        let mut service =
            json!({"metadata": {"name": name}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
        if !asked.is_empty() {
            service["spec"]["loadBalancerIP"] = json!(asked);
        }
        service
    };
    let address = |name: &str| {
        let service = cluster.get(resources::services(), name)?;
        service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned)
    };
    cluster.create(resources::services(), service("asked", "203.0.113.50"));
    cluster.until("the asked one", || address("asked").as_deref() == Some("203.0.113.50")).await;
    cluster.create(resources::services(), service("thief", "203.0.113.50"));
    cluster.create(resources::services(), service("any", ""));
    cluster.until("the first one", || address("any").as_deref() == Some("203.0.113.10")).await;
    assert_eq!(address("thief"), None);
    cluster.modify(resources::services(), "asked", |service| service["spec"]["type"] = json!("ClusterIP"));
    cluster.until("the freed one", || address("thief").as_deref() == Some("203.0.113.50")).await;
    assert_eq!(address("asked"), None);
}
