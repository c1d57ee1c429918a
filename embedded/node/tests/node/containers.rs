//! What a container finds: environment, volumes, root, commands, logs.

use meshgate_store::{Attach, GroupResource, LogOptions, PodAccess, Subresource, WriteOptions};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Scene, Test, content, eventually, shell};

pub const TESTS: &[(&str, Test)] = &[
    ("environment_is_built_as_in_kubernetes", |s| Box::pin(environment(s))),
    ("volumes_hold_what_they_name", |s| Box::pin(volumes(s))),
    ("config_map_files_follow_the_object", |s| Box::pin(volume_update(s))),
    ("a_container_has_a_root_of_its_own", |s| Box::pin(root(s))),
    ("an_image_brings_its_program", |s| Box::pin(image(s))),
    ("a_volume_may_be_mounted_below_usr", |s| Box::pin(mount_below_usr(s))),
    ("run_as_user_is_obeyed_where_the_id_exists", |s| Box::pin(user(s))),
    ("exec_joins_the_container", |s| Box::pin(exec(s))),
    ("exec_with_stdin_and_terminal", |s| Box::pin(exec_attached(s))),
    ("logs_can_be_followed_and_cut", |s| Box::pin(logs(s))),
    ("a_missing_config_map_is_waited_for", |s| Box::pin(missing_config(s))),
];

async fn environment(scene: Scene) {
    scene.create("", "configmaps", json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"COLOR": "blue", "SIZE": "big"},
    }));
    scene.create(
        "",
        "secrets",
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"password": "secret"},
        }),
    );
    let mut container = shell("main", "env | sort; echo \"args: $0 $1\"; pwd");
    container["args"] = json!(["$(COLOR)", "$$(COLOR) $(UNKNOWN)"]);
    container["workingDir"] = json!("/tmp");
    container["envFrom"] =
        json!([{"configMapRef": {"name": "settings"}}, {"prefix": "S_", "secretRef": {"name": "keys"}}]);
    container["env"] = json!([
        {"name": "BOTH", "value": "pod"},
        {"name": "EXPANDED", "value": "$(COLOR) and $(SIZE)"},
        {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "SIZE"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
        {"name": "ABSENT", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": true}}},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
    ]);
    container["resources"] = json!({"requests": {"cpu": "1500m"}});
    scene.pod("env", json!({"restartPolicy": "Never", "containers": [container]}));
    let pod = scene.phase("env", "Succeeded").await;
    let log = scene.log("env", LogOptions::default()).await;
    let ip = pod["status"]["podIP"].as_str().unwrap().to_owned();
    for line in [
        "BOTH=pod",
        "FROM_IMAGE=yes",
        "EXPANDED=blue and big",
        "KEY=big",
        "SECRET=secret",
        "S_password=secret",
        "POD_NAME=env",
        &format!("POD_IP={ip}"),
        "APP=env",
        "CPUS=1500",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_SERVICE_PORT=443",
        "HOSTNAME=env",
        "args: blue $(COLOR) $(UNKNOWN)",
        "/tmp",
    ] {
        assert!(log.lines().any(|present| present == line), "{line:?} is not in\n{log}");
    }
    assert!(!log.contains("ABSENT="), "{log}");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    assert_eq!(pod["status"]["containerStatuses"][0]["imageID"], "test/shell@here");
}

async fn volumes(scene: Scene) {
    scene.create(
        "",
        "configmaps",
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1", "b": "2"},
        }),
    );
    scene.create(
        "",
        "secrets",
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"password": "secret"},
        }),
    );
    std::fs::write(scene.directory.join("file"), "host\n").unwrap();
    let mut reader = shell(
        "main",
        "
        until [ -f /shared/written ]; do sleep 0.02; done
        cat /shared/written; ls /config /items; cat /items/deep/name /secret/password; echo
        cat /var/run/secrets/kubernetes.io/serviceaccount/token; echo
        cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt; echo
        cat /run/secrets/kubernetes.io/serviceaccount/namespace; echo
        cat /podinfo/labels; echo; cat /host/file /etc/settings/only
        touch /config/x 2>/dev/null || echo config is read-only; ls /config",
    );
    reader["volumeMounts"] = json!([
        {"name": "shared", "mountPath": "/shared"}, {"name": "config", "mountPath": "/config"},
        {"name": "items", "mountPath": "/items"}, {"name": "secret", "mountPath": "/secret"},
        {"name": "info", "mountPath": "/podinfo"}, {"name": "host", "mountPath": "/host"},
        {"name": "config", "mountPath": "/etc/settings/only", "subPath": "b"},
    ]);
    let mut writer = shell("writer", "echo from the other container > /shared/written; sleep 30");
    writer["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    scene.pod("volumes", json!({
        "restartPolicy": "Never", "containers": [reader, writer], "terminationGracePeriodSeconds": 0,
        "volumes": [
            {"name": "shared", "emptyDir": {}}, {"name": "config", "configMap": {"name": "settings"}},
            {"name": "items", "configMap": {"name": "settings", "items": [{"key": "a", "path": "deep/name"}]}},
            {"name": "secret", "secret": {"secretName": "keys"}},
            {"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "host", "hostPath": {"path": scene.directory}},
        ],
    }));
    scene
        .until("volumes", "read", |pod| pod["status"]["containerStatuses"][0]["state"]["terminated"].is_object())
        .await;
    let log = scene.log("volumes", LogOptions::default()).await;
    let expected = format!(
        "from the other container\n/config:\na\nb\n\n/items:\ndeep\n1secret\ntoken-of-{ns}-default\nTHE CA\n{ns}\napp=\"volumes\"\nhost\n2config is read-only\na\nb\n",
        ns = scene.namespace
    );
    assert_eq!(log, expected);
    scene.delete("volumes", None);
    scene.gone("volumes").await;
}

async fn volume_update(scene: Scene) {
    scene.create("", "configmaps", json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "old", "gone": "x"},
    }));
    // The files of a volume change one by one, and a key that is gone goes last: the container waits for both.
    let mut container = shell(
        "main",
        "cat /config/key; until grep -q new /config/key && [ ! -e /config/gone ]; do sleep 0.02; done
        cat /config/key; ls /config",
    );
    container["volumeMounts"] = json!([{"name": "config", "mountPath": "/config"}]);
    scene.pod(
        "follower",
        json!({
            "restartPolicy": "Never", "containers": [container],
            "volumes": [{"name": "config", "configMap": {"name": "settings"}}],
        }),
    );
    let mut log = scene.until("follower", "running", |pod| pod["status"]["phase"] == "Running").await;
    assert_eq!(log["status"]["phase"], "Running");
    scene
        .store
        .modify(
            &GroupResource::new("", "configmaps"),
            &scene.namespace,
            "settings",
            Subresource::Main,
            &WriteOptions::default(),
            &mut |object| {
                object["data"] = json!({"key": "new\n"});
                Ok(())
            },
        )
        .unwrap();
    log = scene.phase("follower", "Succeeded").await;
    assert_eq!(log["status"]["phase"], "Succeeded");
    let log = scene.log("follower", LogOptions::default()).await;
    assert!(log.ends_with("new\nkey\n"), "{log}");
}

async fn root(scene: Scene) {
    let log = scene
        .output(
            "rooted",
            "
        hostname; cat /etc/hostname /etc/resolv.conf; ls -A /root /home /tmp
        touch /usr/x 2>/dev/null && echo usr is writable
        touch /tmp/x /root/x /x && echo own directories are writable
        readlink /proc/self/root; echo ok > /dev/null; head -c 4 /dev/zero | wc -c; id -u; echo to-stderr >&2
        ls -d /work 2>/dev/null",
        )
        .await;
    let expected = format!(
        "rooted\nrooted\nnameserver 10.96.0.10\nsearch {ns}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n/home:\n\n/root:\n\n/tmp:\nown directories are writable\n/\n4\n0\nto-stderr\n",
        ns = scene.namespace
    );
    assert_eq!(log, expected);

    let mut container = shell("main", "touch /x 2>/dev/null || echo read-only; touch /data/x && echo but the volume");
    container["securityContext"] = json!({"readOnlyRootFilesystem": true});
    container["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    scene.pod(
        "fixed",
        json!({
            "restartPolicy": "Never", "containers": [container], "volumes": [{"name": "data", "emptyDir": {}}],
        }),
    );
    scene.phase("fixed", "Succeeded").await;
    assert_eq!(scene.log("fixed", LogOptions::default()).await, "read-only\nbut the volume\n");
}

async fn mount_below_usr(scene: Scene) {
    scene.create(
        "",
        "configmaps",
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "page"}, "data": {"index.html": "hello\n"},
        }),
    );
    let mut container = shell(
        "main",
        "cat /usr/share/absent/html/index.html; ls -d /usr/share/doc/; touch /usr/x 2>/dev/null || echo read-only",
    );
    container["volumeMounts"] = json!([{"name": "page", "mountPath": "/usr/share/absent/html"}]);
    scene.pod("page", json!({
        "restartPolicy": "Never", "containers": [container], "volumes": [{"name": "page", "configMap": {"name": "page"}}],
    }));
    scene.phase("page", "Succeeded").await;
    assert_eq!(scene.log("page", LogOptions::default()).await, "hello\n/usr/share/doc/\nread-only\n");
}

async fn user(scene: Scene) {
    // Only root may map a second id (see `meshgate_net::namespaces`); an id that is not mapped is ignored.
    let mapped = std::fs::read_to_string("/proc/self/uid_map").unwrap().contains(" 2102 ");
    for (name, id, expected) in [("proxy", 2102, if mapped { "2102\n" } else { "0\n" }), ("other", 65532, "0\n")] {
        let mut container = shell("main", "id -u");
        container["securityContext"] = json!({"runAsUser": id, "runAsGroup": id});
        scene.pod(name, json!({"restartPolicy": "Never", "containers": [container]}));
        scene.phase(name, "Succeeded").await;
        assert_eq!(scene.log(name, LogOptions::default()).await, expected);
    }
}

async fn image(scene: Scene) {
    let cases = [
        ("plain", json!({}), "greet by default OWN=yes\n"),
        ("args", json!({"args": ["by argument"]}), "greet by argument OWN=yes\n"),
        ("path", json!({"command": ["/usr/local/bin/greet"], "args": ["by path"]}), "greet by path OWN=yes\n"),
        ("shell", json!({"command": ["sh", "-c", "greet 'by shell'"]}), "greet by shell OWN=yes\n"),
    ];
    for (name, mut container, expected) in cases {
        container["name"] = json!("main");
        container["image"] = json!("test/tool");
        scene.pod(name, json!({"restartPolicy": "Never", "containers": [container]}));
        scene.until(name, "over", |pod| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))).await;
        assert_eq!(scene.log(name, LogOptions::default()).await, expected, "{name}");
    }
}

async fn exec(scene: Scene) {
    scene.script("target", "echo inside > /tmp/file; sleep 60");
    scene.phase("target", "Running").await;
    let (code, out, err) = scene
        .exec("target", &["sh", "-c", "until [ -f /tmp/file ]; do sleep 0.01; done; cat /tmp/file; hostname; echo $FROM_IMAGE; echo oops >&2; exit 3"])
        .await;
    assert_eq!((code, out.as_str(), err.as_str()), (3, "inside\ntarget\nyes\n", "oops\n"));
    let (code, _, err) = scene.exec("target", &["absent-program"]).await;
    assert_eq!(code, 127);
    assert!(err.contains("absent-program") && err.contains("not found"), "{err}");
    let refused = scene.node.exec(&scene.namespace, "target", "other", vec!["true".into()], Attach::default()).await;
    assert_eq!(refused.err().unwrap().message, "container other is not valid for pod target");
    scene.delete("target", Some(0));
}

async fn exec_attached(scene: Scene) {
    scene.script("target", "sleep 60");
    scene.phase("target", "Running").await;
    let attach = Attach { stdin: true, tty: false };
    let mut exec = scene.node.exec(&scene.namespace, "target", "main", vec!["cat".into()], attach).await.unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    stdin.write_all(b"through").await.unwrap();
    drop(stdin);
    let mut text = String::new();
    exec.stdout.read_to_string(&mut text).await.unwrap();
    assert_eq!((text.as_str(), exec.exit.await.unwrap()), ("through", 0));

    if std::path::Path::new("/usr/bin/script").exists() {
        let attach = Attach { stdin: true, tty: true };
        let command = ["sh", "-c", "tty >/dev/null && echo \"it's a terminal\"; exit 5"].map(str::to_owned).to_vec();
        let mut exec = scene.node.exec(&scene.namespace, "target", "main", command, attach).await.unwrap();
        let mut text = String::new();
        exec.stdout.read_to_string(&mut text).await.unwrap();
        assert_eq!((text.trim(), exec.exit.await.unwrap()), ("it's a terminal", 5));
    }
    scene.delete("target", Some(0));
}

async fn logs(scene: Scene) {
    let go = scene.directory.join("go");
    let mut container = shell("main", "echo one; echo two; until [ -f /host/go ]; do sleep 0.02; done; echo three");
    container["volumeMounts"] = json!([{"name": "host", "mountPath": "/host"}]);
    scene.pod(
        "talker",
        json!({
            "restartPolicy": "Never", "containers": [container],
            "volumes": [{"name": "host", "hostPath": {"path": scene.directory}}],
        }),
    );
    scene.phase("talker", "Running").await;
    let options = LogOptions { follow: true, ..Default::default() };
    let mut stream = scene.node.logs(&scene.namespace, "talker", "", options).await.unwrap();
    let mut text = String::new();
    while !text.contains("two") {
        text.push_str(std::str::from_utf8(&stream.recv().await.unwrap()).unwrap());
    }
    assert_eq!(text, "one\ntwo\n");
    std::fs::write(go, "").unwrap();
    let mut rest = Vec::new();
    while let Some(chunk) = stream.recv().await {
        rest.extend(chunk);
    }
    assert_eq!(rest, b"three\n");
    scene.phase("talker", "Succeeded").await;
    assert_eq!(scene.log("talker", LogOptions { tail_lines: Some(1), ..Default::default() }).await, "three\n");
    let refused =
        scene.node.logs(&scene.namespace, "talker", "", LogOptions { previous: true, ..Default::default() }).await;
    let message = refused.err().unwrap().message;
    assert_eq!(message, "previous terminated container \"main\" in pod \"talker\" not found");
}

async fn missing_config(scene: Scene) {
    let mut container = shell("main", "cat /config/key; echo $KEY > /host/out");
    container["env"] = json!([{"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "other"}}}]);
    container["volumeMounts"] =
        json!([{"name": "config", "mountPath": "/config"}, {"name": "host", "mountPath": "/host"}]);
    scene.pod("early", json!({
        "restartPolicy": "Never", "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "later"}}, {"name": "host", "hostPath": {"path": scene.directory}}],
    }));
    eventually("the mount is refused", || scene.events("early").iter().any(|event| event["reason"] == "FailedMount"))
        .await;
    let map = |data: serde_json::Value| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later"}, "data": data,
        })
    };
    scene.create("", "configmaps", map(json!({"key": "1"})));
    let waiting = |pod: &serde_json::Value| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    };
    scene.until("early", "waiting for its key", waiting).await;
    scene
        .store
        .modify(
            &GroupResource::new("", "configmaps"),
            &scene.namespace,
            "later",
            Subresource::Main,
            &WriteOptions::default(),
            &mut |object| {
                object["data"]["other"] = json!("value");
                Ok(())
            },
        )
        .unwrap();
    assert_eq!(content(&scene.directory.join("out")).await, "value\n");
    scene.phase("early", "Succeeded").await;
}
