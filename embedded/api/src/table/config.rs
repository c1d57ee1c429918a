//! Printers of configuration, accounts, roles and events.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::format::{UNKNOWN, age, count, int, items, since, text};
use super::printer::Column::{self, Number, Text, Wide};
use super::printer::{Builtin, Cells};

pub(super) fn printer(group: &str, plural: &str) -> Option<Builtin> {
    let (columns, cells): (&'static [Column], Cells) = match (group, plural) {
        ("", "configmaps") => (&[Number("Data"), Text("Age")], config_map),
        ("", "secrets") => (&[Text("Type"), Number("Data"), Text("Age")], secret),
        ("", "serviceaccounts") => (&[Number("Secrets"), Text("Age")], service_account),
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => (&[Text("Created At")], created_at),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            (&[Text("Role"), Text("Age"), Wide("Users"), Wide("Groups"), Wide("ServiceAccounts")], binding)
        }
        ("coordination.k8s.io", "leases") => (&[Text("Holder"), Text("Age")], lease),
        ("" | "events.k8s.io", "events") => (
            &[
                Text("Last Seen"),
                Text("Type"),
                Text("Reason"),
                Text("Object"),
                Wide("Subobject"),
                Wide("Source"),
                Text("Message"),
                Wide("First Seen"),
                Wide("Count"),
                Wide("Name"),
            ],
            event,
        ),
        _ => return None,
    };
    Some(Builtin { columns, cells })
}

fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(count(object, "/data") + count(object, "/binaryData")), age(object, now)]
}

fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(text(object, "/type")), json!(count(object, "/data")), age(object, now)]
}

fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(count(object, "/secrets")), age(object, now)]
}

/// The moment itself, for kinds whose age nobody asks for.
pub(super) fn created_at(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![object["metadata"]["creationTimestamp"].clone()]
}

fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name"));
    let subjects = |kind: &str| -> String {
        let names = items(object, "/subjects").iter().filter(|subject| text(subject, "/kind") == kind);
        let names = names.map(|subject| match (kind, text(subject, "/namespace")) {
            ("ServiceAccount", namespace) => format!("{namespace}/{}", text(subject, "/name")),
            _ => text(subject, "/name").to_owned(),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    vec![
        json!(role),
        age(object, now),
        json!(subjects("User")),
        json!(subjects("Group")),
        json!(subjects("ServiceAccount")),
    ]
}

fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(text(object, "/spec/holderIdentity")), age(object, now)]
}

/// Events of both groups: `v1` calls its object `involvedObject`, `events.k8s.io/v1` calls it `regarding`.
fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let either = |a: &'static str, b: &'static str| if object.pointer(a).is_some() { a } else { b };
    let about = &object[if object.get("regarding").is_some() { "regarding" } else { "involvedObject" }];
    let happened = text(object, "/eventTime");
    let first = match text(object, either("/firstTimestamp", "/deprecatedFirstTimestamp")) {
        "" => happened,
        time => time,
    };
    let series = text(object, "/series/lastObservedTime");
    let last = match text(object, either("/lastTimestamp", "/deprecatedLastTimestamp")) {
        "" if series.is_empty() => first,
        "" => series,
        time => time,
    };
    let seen = |time: &str| if time.is_empty() { UNKNOWN.to_owned() } else { since(time, now) };
    let component = match text(object, either("/source/component", "/deprecatedSource/component")) {
        "" => text(object, either("/reportingComponent", "/reportingController")),
        component => component,
    };
    let host = text(object, either("/source/host", "/deprecatedSource/host"));
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    let count = int(object, either("/count", "/deprecatedCount")).max(int(object, "/series/count")).max(1);
    vec![
        json!(seen(last)),
        json!(text(object, "/type")),
        json!(text(object, "/reason")),
        json!(format!("{}/{}", text(about, "/kind").to_lowercase(), text(about, "/name"))),
        json!(text(about, "/fieldPath")),
        json!(source),
        json!(text(object, either("/message", "/note")).trim()),
        json!(seen(first)),
        json!(count.to_string()),
        object["metadata"]["name"].clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_both_groups() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let core = json!({
            "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "web"}, "type": "Normal", "reason": "Started",
            "message": "ok\n", "lastTimestamp": "2026-01-01T00:00:30Z", "source": {"component": "kubelet"}, "count": 2,
        });
        let cells = event(&core, now);
        assert_eq!(cells[..4], [json!("30s"), json!("Normal"), json!("Started"), json!("pod/web")]);
        assert_eq!((&cells[5], &cells[6], &cells[8]), (&json!("kubelet"), &json!("ok"), &json!("2")));
        let newer = json!({
            "metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "web"}, "note": "ok",
            "eventTime": "2026-01-01T00:00:59.000000Z", "reportingController": "x",
        });
        let cells = event(&newer, now);
        assert_eq!((&cells[0], &cells[3], &cells[6]), (&json!("1s"), &json!("pod/web"), &json!("ok")));
    }
}
