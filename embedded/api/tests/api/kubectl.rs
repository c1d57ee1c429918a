//! kubectl as people use it.

use crate::cluster::{Cluster, PATIENCE};
use crate::kube_rs::widgets;

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "web:1", ports: [{containerPort: 80}]}
      - {name: sidecar, image: "sidecar:1"}
"#;

#[tokio::test]
async fn apply_and_change_and_look() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.feed("apply", DEPLOYMENT).await, "deployment.apps/web created\n");
    assert_eq!(cluster.feed("apply", DEPLOYMENT).await, "deployment.apps/web unchanged\n");
    let changed = DEPLOYMENT.replace("web:1", "web:2");
    let difference = cluster.run(&["diff", "-f", "-"], &changed).await;
    assert!(!difference.ok && difference.out.contains("+      - image: web:2"), "{difference:?}");
    assert_eq!(cluster.feed("apply", &changed).await, "deployment.apps/web configured\n");
    let images = "get deployment web -o jsonpath={.spec.template.spec.containers[*].image}";
    assert_eq!(cluster.kubectl(images).await, "web:2 sidecar:1", "a strategic merge keeps the other container");
    cluster.kubectl("set image deployment/web sidecar=sidecar:2").await;
    assert_eq!(cluster.kubectl(images).await, "web:2 sidecar:2");

    cluster.kubectl("scale deployment web --replicas=5").await;
    assert_eq!(cluster.kubectl("get deployment web -o jsonpath={.spec.replicas}").await, "5");
    cluster.kubectl("label deployment web tier=front").await;
    cluster.kubectl("annotate deployment web note=before").await;
    cluster.kubectl("edit deployment web").await;
    assert_eq!(cluster.kubectl("get deployment web -o jsonpath={.metadata.annotations.note}").await, "after");
    cluster
        .kubectl(r#"patch deployment web --type=json -p [{"op":"replace","path":"/spec/replicas","value":1}]"#)
        .await;
    cluster.kubectl(r#"patch deployment web --type=merge -p {"spec":{"paused":true}}"#).await;
    cluster
        .kubectl(
            r#"patch deployment web -p {"spec":{"template":{"spec":{"containers":[{"name":"web","image":"web:3"}]}}}}"#,
        )
        .await;
    assert_eq!(cluster.kubectl(images).await, "web:3 sidecar:2");

    let table = cluster.kubectl("get deployments -o wide").await;
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let head = ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"];
    assert_eq!(lines.next().unwrap(), head);
    let row = lines.next().unwrap();
    assert_eq!(row[..4], ["web", "0/1", "0", "0"]);
    assert_eq!(row[5..], ["web,sidecar", "web:3,sidecar:2", "app=web"]);
    let described = cluster.kubectl("describe deployment web").await;
    assert!(described.contains("web:3") && described.contains("StrategyType"), "{described}");
    assert_eq!(cluster.kubectl("get deployment -l tier=front -o name").await, "deployment.apps/web\n");
    assert_eq!(cluster.kubectl("get deployment -l tier!=front -o name").await, "");
    assert_eq!(
        cluster.kubectl("delete deployment web").await,
        "deployment.apps \"web\" deleted from default namespace\n"
    );
    assert!(cluster.refused("get deployment web").await.contains("deployments.apps \"web\" not found"));
}

#[tokio::test]
async fn server_side_apply_knows_its_managers() {
    let cluster = Cluster::start().await;
    let applied = cluster.feed("apply --server-side", DEPLOYMENT).await;
    assert_eq!(applied, "deployment.apps/web serverside-applied\n");
    let other = DEPLOYMENT.replace("replicas: 2", "replicas: 3");
    let said = cluster.run(&["apply", "--server-side", "--field-manager=other", "-f", "-"], &other).await;
    assert!(
        !said.ok && said.err.contains("conflict with \"kubectl\"") && said.err.contains(".spec.replicas"),
        "{said:?}"
    );
    cluster.feed("apply --server-side --field-manager=other --force-conflicts", &other).await;
    assert_eq!(cluster.kubectl("get deployment web -o jsonpath={.spec.replicas}").await, "3");
    // From client-side to server-side apply: kubectl moves its own ownership along.
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: moved}\ndata: {a: b}\n";
    cluster.feed("apply", map).await;
    cluster.feed("apply --server-side", map).await;
    cluster.feed("apply --server-side", &map.replace("a: b", "a: c")).await;
    assert_eq!(cluster.kubectl("get cm moved -o jsonpath={.data.a}").await, "c");
}

#[tokio::test]
async fn typed_creates_come_as_protobuf() {
    let cluster = Cluster::start().await;
    cluster.kubectl("create namespace demo").await;
    cluster.kubectl("create configmap map --from-literal=a=b -n demo").await;
    cluster.kubectl("create secret generic secret --from-literal=a=b -n demo").await;
    cluster.kubectl("create deployment web --image=web:1 --replicas=2 -n demo").await;
    cluster.kubectl("create service clusterip web --tcp=80:8080 -n demo").await;
    cluster.kubectl("create ingress web --rule=web.test/*=web:80 -n demo").await;
    cluster.kubectl("create role reader --verb=get --resource=pods -n demo").await;
    cluster.kubectl("create job once --image=once:1 -n demo").await;
    cluster.kubectl("create serviceaccount robot -n demo").await;
    assert_eq!(cluster.kubectl("get secret secret -n demo -o jsonpath={.data.a}").await, "Yg==");
    assert_eq!(
        cluster
            .kubectl("get ingress web -n demo -o jsonpath={.spec.rules[0].http.paths[0].backend.service.port.number}")
            .await,
        "80"
    );
    assert_eq!(cluster.kubectl("get service web -n demo -o jsonpath={.spec.ports[0].targetPort}").await, "8080");
    assert!(cluster.kubectl("auth can-i delete pods").await.starts_with("yes"));
    assert!(cluster.kubectl("create token robot -n demo").await.split('.').count() == 3);
    assert!(cluster.kubectl("auth whoami").await.contains("kubernetes-admin"));
    assert_eq!(cluster.kubectl("get ns demo -o jsonpath={.status.phase}").await, "Active");
}

#[tokio::test]
async fn custom_kinds_are_there_at_once() {
    let cluster = Cluster::start().await;
    cluster.feed("apply", &widgets().to_string()).await;
    cluster.kubectl("wait crd/widgets.example.org --for=condition=established --timeout=10s").await;
    let widget = "apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: w}\nspec: {host: w.test, replicas: 2}\n";
    assert_eq!(cluster.feed("apply", widget).await, "widget.example.org/w created\n");
    assert_eq!(cluster.feed("apply", widget).await, "widget.example.org/w unchanged\n");
    let table = cluster.kubectl("get wd").await;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "HOST", "REPLICAS", "AGE"]);
    assert_eq!(lines[1][..3], ["w", "w.test", "2"]);
    cluster.kubectl("scale widget w --replicas=4").await;
    assert_eq!(cluster.kubectl("get widget w -o jsonpath={.spec.replicas}").await, "4");
    let explained = cluster.kubectl("explain widget.spec.host").await;
    assert!(explained.contains("Its host."), "{explained}");
    let said = cluster.run(&["apply", "-f", "-"], &widget.replace("host:", "hosts:")).await;
    assert!(!said.ok && said.err.contains("unknown field \"spec.hosts\""), "{said:?}");
    let said = cluster.run(&["patch", "widget", "w", "--type=strategic", "-p", r#"{"spec":{"replicas":1}}"#], "").await;
    assert!(!said.ok, "a strategic merge patch has no meaning for a custom kind: {said:?}");
}

#[tokio::test]
async fn explain_reads_the_schemas() {
    let cluster = Cluster::start().await;
    let explained = cluster.kubectl("explain deployment.spec.replicas").await;
    assert!(explained.contains("FIELD: replicas <integer>"), "{explained}");
    let explained = cluster.kubectl("explain pods.spec.containers.ports").await;
    assert!(explained.contains("containerPort") && explained.contains("ContainerPort"), "{explained}");
}

#[tokio::test]
async fn mistakes_are_refused_and_not_stored() {
    let cluster = Cluster::start().await;
    let said = cluster.run(&["apply", "-f", "-"], &DEPLOYMENT.replace("replicas", "replica")).await;
    assert!(!said.ok && said.err.contains("unknown field \"spec.replica\""), "{said:?}");
    let said =
        cluster.run(&["create", "-f", "-"], &DEPLOYMENT.replace("namespace: default", "namespace: nowhere")).await;
    assert!(said.err.contains("namespaces \"nowhere\" not found"), "{said:?}");
    assert!(cluster.refused("get nonsense").await.contains("the server doesn't have a resource type \"nonsense\""));
    assert!(
        cluster
            .refused("get --raw /apis/nonsense/v1/things")
            .await
            .contains("the server could not find the requested resource")
    );
    assert_eq!(cluster.kubectl("get deployments").await, "");
}

#[tokio::test]
async fn waits_and_watches() {
    let cluster = Cluster::start().await;
    cluster.pod("web", "127.0.0.1");
    cluster.kubectl("wait pod/web --for=condition=Ready --timeout=10s").await;
    cluster.kubectl("wait pod/web --for=jsonpath={.status.phase}=Running --timeout=10s").await;
    let mut waiting = cluster.command(&["wait", "pod/web", "--for=delete", "--timeout=30s"]).spawn().unwrap();
    let mut watching = cluster.command(&["get", "pods", "-w", "--no-headers"]).spawn().unwrap();
    let mut lines = {
        use tokio::io::{AsyncBufReadExt, BufReader};
        BufReader::new(watching.stdout.take().unwrap()).lines()
    };
    let mut line = async || tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("a line in time").unwrap();
    assert!(line().await.unwrap().contains("1/1"), "the pod that is there");
    cluster.kubectl("label pod web seen=yes").await;
    assert!(line().await.unwrap().starts_with("web "), "the pod that changed");
    cluster.kubectl("delete pod web --grace-period=0 --force --wait=false").await;
    let waited = tokio::time::timeout(PATIENCE, waiting.wait()).await.expect("kubectl wait ends").unwrap();
    assert!(waited.success());
    let table = cluster.kubectl("get svc").await;
    assert!(table.contains("10.96.0.1") && table.contains("443/TCP"), "{table}");
}

#[tokio::test]
async fn discovery_lists_what_there_is() {
    let cluster = Cluster::start().await;
    let resources = cluster.kubectl("api-resources --no-headers").await;
    for wanted in
        ["deployments ", "ingresses ", "customresourcedefinitions ", "endpointslices ", "selfsubjectaccessreviews "]
    {
        assert!(resources.lines().any(|line| line.starts_with(wanted)), "{wanted} is missing:\n{resources}");
    }
    let versions = cluster.kubectl("api-versions").await;
    assert!(versions.lines().any(|version| version == "apps/v1"), "{versions}");
    assert!(cluster.kubectl("version").await.contains("Server Version: v1.37.1"));
    assert!(cluster.kubectl("get --raw /readyz?verbose").await.contains("readyz check passed"));
    assert!(cluster.kubectl("get all -A").await.contains("service/kubernetes"));
}
