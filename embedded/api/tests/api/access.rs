//! Who may do what.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, ListParams};
use serde_json::json;

use crate::cluster::Cluster;

fn account(cluster: &Cluster) -> String {
    cluster.put(
        "",
        "serviceaccounts",
        "default",
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}),
    );
    let token = cluster.running.tokens().issue("default", "robot", &[], Duration::from_secs(600)).unwrap();
    token.token
}

#[tokio::test]
async fn a_service_account_may_what_its_roles_say() {
    let cluster = Cluster::start().await;
    let client = cluster.client_with(&account(&cluster)).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let error = maps.list(&ListParams::default()).await.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        status.message,
        "configmaps is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    let error =
        Api::<k8s_openapi::api::networking::v1::Ingress>::all(client.clone()).list(&ListParams::default()).await;
    assert!(error.unwrap_err().to_string().contains(
        "ingresses.networking.k8s.io is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"ingresses\" in API group \"networking.k8s.io\" at the cluster scope"
    ));

    // `view` is made of other roles by labels.
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "robot"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
    });
    cluster.put("rbac.authorization.k8s.io", "rolebindings", "default", binding);
    maps.list(&ListParams::default()).await.unwrap();
    let elsewhere: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    assert!(elsewhere.list(&ListParams::default()).await.is_err(), "a RoleBinding holds in its namespace");
    let secrets: Api<Secret> = Api::namespaced(client, "default");
    assert!(secrets.list(&ListParams::default()).await.is_err(), "view does not show secrets");
}

#[tokio::test]
async fn tokens_die_with_their_account_and_their_time() {
    let cluster = Cluster::start().await;
    let token = account(&cluster);
    let who = async |token: &str| {
        let client = cluster.client_with(token).await;
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        match maps.list(&ListParams::default()).await {
            Err(kube::Error::Api(status)) => status.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(who(&token).await, 403, "known, but without rights");
    assert_eq!(who("nonsense").await, 401);
    let forged = token.replace('.', ".a");
    assert_eq!(who(&forged).await, 401, "a token that was touched");
    let expired = cluster.running.tokens().issue("default", "robot", &[], Duration::ZERO).unwrap();
    assert_eq!(who(&expired.token).await, 401);
    let other =
        cluster.running.tokens().issue("default", "robot", &["vault".to_owned()], Duration::from_secs(600)).unwrap();
    assert_eq!(who(&other.token).await, 401, "a token for somebody else");
    let accounts = meshgate_store::GroupResource::new("", "serviceaccounts");
    cluster.store.remove(&accounts, "default", "robot").unwrap();
    assert_eq!(who(&token).await, 401, "the account is gone");
    let again = account(&cluster);
    assert_eq!(who(&token).await, 401, "an account of the same name is another account");
    assert_eq!(who(&again).await, 403);
}

#[tokio::test]
async fn impersonation_is_for_those_who_may() {
    let cluster = Cluster::start().await;
    let error = cluster.refused("get pods -A --as=system:serviceaccount:traefik:traefik").await;
    assert!(error.contains("User \"system:serviceaccount:traefik:traefik\" cannot list resource \"pods\""), "{error}");
    assert!(cluster.kubectl("get pods --as=somebody --as-group=system:masters").await.is_empty());
    let client = cluster.client_with(&account(&cluster)).await;
    let request =
        http::Request::get("/api/v1/pods").header("impersonate-user", "kubernetes-admin").body(Vec::new()).unwrap();
    let error = client.request::<serde_json::Value>(request).await.unwrap_err();
    assert!(error.to_string().contains("cannot impersonate resource \"users\""), "{error}");
}

#[tokio::test]
async fn reviews_answer_without_being_stored() {
    let cluster = Cluster::start().await;
    let client = cluster.client_with(&account(&cluster)).await;
    let review = |resource: &str| {
        json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "create", "group": "authorization.k8s.io", "resource": resource}},
        })
    };
    let ask = async |body: serde_json::Value, path: &str| -> serde_json::Value {
        let request =
            http::Request::post(path).header("content-type", "application/json").body(body.to_string().into_bytes());
        client.request(request.unwrap()).await.unwrap()
    };
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(ask(review("selfsubjectaccessreviews"), path).await["status"]["allowed"], true);
    assert_eq!(ask(review("subjectaccessreviews"), path).await["status"]["allowed"], false);
    let who = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let who = ask(who, "/apis/authentication.k8s.io/v1/selfsubjectreviews").await;
    assert_eq!(who["status"]["userInfo"]["username"], "system:serviceaccount:default:robot");
    let listed = cluster.kubectl("auth can-i --list").await;
    assert!(listed.contains("*.*"), "{listed}");
}

#[tokio::test]
async fn token_reviews_check_audiences() {
    let cluster = Cluster::start().await;
    account(&cluster);
    let client = cluster.client().await;
    let audiences = ["vault".to_owned()];
    let token = cluster.running.tokens().issue("default", "robot", &audiences, Duration::from_secs(600)).unwrap().token;
    let review = async |audiences: serde_json::Value| -> serde_json::Value {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": audiences},
        });
        let request = http::Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes());
        client.request(request.unwrap()).await.unwrap()
    };
    let good = review(json!(["vault", "other"])).await;
    assert_eq!((&good["status"]["authenticated"], &good["status"]["audiences"]), (&json!(true), &json!(["vault"])));
    assert_eq!(good["status"]["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(review(json!([])).await["status"]["authenticated"], false, "not for the API server");
    assert_eq!(review(json!(["other"])).await["status"]["authenticated"], false);
}
