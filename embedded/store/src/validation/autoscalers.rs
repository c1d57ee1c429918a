//! Rules of HorizontalPodAutoscalers, as `autoscaling/v2` has them.

use serde_json::{Value, json};

use super::{names, one_of, quantities, reference};
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};

/// Longest times, in seconds: that a policy looks back, and that a decision is put off.
const MAX_PERIOD: i64 = 1800;
const MAX_WINDOW: i64 = 3600;

/// What a metric may be, sorted, and the field that says more of it.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// A HorizontalPodAutoscaler.
pub(super) fn autoscaler(object: &Value, errors: &mut FieldErrors) {
    let spec = &object["spec"];
    let metrics = items(spec, "/metrics");
    let least = int_at(spec, "/minReplicas");
    // Whether a workload may have no pods at all is up to the cluster; something else must tell then when it needs one.
    let may_be_none = metrics.iter().any(|metric| matches!(str_at(metric, "/type"), "External" | "Object"));
    if let Some(least) = least.filter(|least| *least < 0 || *least == 0 && !may_be_none) {
        errors.invalid("spec.minReplicas", &json!(least), "must be greater than or equal to 1");
    }
    let most = int_at(spec, "/maxReplicas").unwrap_or(0);
    if most < 1 {
        errors.invalid("spec.maxReplicas", &json!(most), "must be greater than 0");
    }
    if least.unwrap_or(1) > most {
        errors.invalid("spec.maxReplicas", &json!(most), "must be greater than or equal to `minReplicas`");
    }
    object_reference("spec.scaleTargetRef", &spec["scaleTargetRef"], errors);
    for (index, metric) in metrics.iter().enumerate() {
        self::metric(&format!("spec.metrics[{index}]"), metric, errors);
    }
    for key in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec.get("behavior").and_then(|behavior| given(behavior, key)) {
            scaling(&format!("spec.behavior.{key}"), rules, errors);
        }
    }
}

fn object_reference(path: &str, object: &Value, errors: &mut FieldErrors) {
    for key in ["kind", "name"] {
        reference(path, object, key, names::path_segment, errors);
    }
}

fn metric(path: &str, metric: &Value, errors: &mut FieldErrors) {
    let kind = str_at(metric, "/type");
    let field = format!("{path}.type");
    if kind.is_empty() {
        errors.required(field.as_str(), "must specify a metric source type");
    }
    let own = SOURCES.iter().find(|(source, _)| *source == kind).map(|(_, key)| *key);
    if own.is_none() {
        errors.unsupported(field, &json!(kind), &SOURCES.map(|(source, _)| source));
    }
    for (_, key) in SOURCES {
        match given(metric, key) {
            Some(source) if own.is_none_or(|own| own == key) => {
                self::source(&format!("{path}.{key}"), key, source, errors)
            }
            Some(_) => errors.forbidden(format!("{path}.{key}"), "must populate the given metric source only"),
            None if own == Some(key) => {
                errors.required(format!("{path}.{key}"), "must populate information for the given metric source");
            }
            None => {}
        }
    }
}

fn source(path: &str, kind: &str, source: &Value, errors: &mut FieldErrors) {
    match kind {
        "containerResource" | "resource" => {
            if str_at(source, "/name").is_empty() {
                errors.required(format!("{path}.name"), "must specify a resource name");
            }
        }
        _ => {
            let (field, name) = (format!("{path}.metric.name"), str_at(source, "/metric/name"));
            if name.is_empty() {
                errors.required(field, "must specify a metric name");
            } else {
                errors.each(field, &json!(name), names::path_segment(name));
            }
        }
    }
    if kind == "containerResource" {
        let (field, name) = (format!("{path}.container"), str_at(source, "/container"));
        if name.is_empty() {
            errors.required(field, "must specify a container");
        } else {
            errors.each(field, &json!(name), names::dns_label(name));
        }
    }
    if kind == "object" {
        object_reference(&format!("{path}.describedObject"), &source["describedObject"], errors);
    }
    target(&format!("{path}.target"), kind, &source["target"], errors);
}

fn target(path: &str, kind: &str, target: &Value, errors: &mut FieldErrors) {
    let said = str_at(target, "/type");
    let field = format!("{path}.type");
    if said.is_empty() {
        errors.required(field.as_str(), "must specify a metric target type");
    }
    if !matches!(said, "Utilization" | "Value" | "AverageValue") {
        errors.invalid(field, &json!(said), "must be either Utilization, Value, or AverageValue");
    }
    for key in ["value", "averageValue"] {
        if let Some(found) = given(target, key).filter(|found| quantities::nanos(found).is_some_and(|found| found <= 0))
        {
            errors.invalid(format!("{path}.{key}"), &json!(quantities::text(found)), "must be positive");
        }
    }
    if let Some(percent) = int_at(target, "/averageUtilization").filter(|percent| *percent < 1) {
        errors.invalid(format!("{path}.averageUtilization"), &json!(percent), "must be greater than 0");
    }
    let has = |key: &str| given(target, key).is_some();
    let (average, value, percent) =
        (format!("{path}.averageValue"), format!("{path}.value"), format!("{path}.averageUtilization"));
    match kind {
        "object" if !has("value") && !has("averageValue") => {
            errors.required(average, "must set either a target value or averageValue");
        }
        "external" if !has("value") && !has("averageValue") => {
            errors.required(average, "must set either a target value for metric or a per-pod target");
        }
        "external" if has("value") && has("averageValue") => {
            errors.forbidden(value, "may not set both a target value for metric and a per-pod target");
        }
        "pods" if !has("averageValue") => errors.required(average, "must specify a positive target averageValue"),
        "resource" | "containerResource" if !has("averageUtilization") && !has("averageValue") => {
            errors.required(percent, "must set either a target raw value or a target utilization");
        }
        "resource" | "containerResource" if has("averageUtilization") && has("averageValue") => {
            errors.forbidden(average, "may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

/// How fast there may be more pods, or fewer.
fn scaling(path: &str, rules: &Value, errors: &mut FieldErrors) {
    if let Some(seconds) = int_at(rules, "/stabilizationWindowSeconds") {
        within(&format!("{path}.stabilizationWindowSeconds"), seconds, 0, MAX_WINDOW, errors);
    }
    one_of(rules, "selectPolicy", path, &["Disabled", "Max", "Min"], errors);
    for (index, policy) in items(rules, "/policies").iter().enumerate() {
        let path = format!("{path}.policies[{index}]");
        let kind = str_at(policy, "/type");
        if !matches!(kind, "Percent" | "Pods") {
            errors.unsupported(format!("{path}.type"), &json!(kind), &["Percent", "Pods"]);
        }
        let number = |key: &str| int_at(policy, key).unwrap_or(0);
        within(&format!("{path}.value"), number("/value"), 1, i64::MAX, errors);
        within(&format!("{path}.periodSeconds"), number("/periodSeconds"), 1, MAX_PERIOD, errors);
    }
}

fn within(field: &str, number: i64, least: i64, most: i64, errors: &mut FieldErrors) {
    if number < least {
        let relation = if least == 0 { "greater than or equal to" } else { "greater than" };
        errors.invalid(field, &json!(number), &format!("must be {relation} zero"));
    }
    if number > most {
        errors.invalid(field, &json!(number), &format!("must be less than or equal to {most}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Good;
    use super::*;

    fn good(metrics: Value) -> Good {
        let spec = json!({
            "minReplicas": 1, "maxReplicas": 3, "metrics": metrics,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "behavior": {"scaleDown": {
                "stabilizationWindowSeconds": 300, "selectPolicy": "Max",
                "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}],
            }},
        });
        let object = json!({"metadata": {"name": "web"}, "spec": spec});
        Good::new("autoscaling", "horizontalpodautoscalers", object)
    }

    fn processors() -> Value {
        json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80},
        }})
    }

    #[test]
    fn how_many_pods_of_what() {
        let good = good(json!([processors()]));
        good.takes(&[("/spec/behavior", Value::Null), ("/spec/metrics", Value::Null), ("/spec/minReplicas", json!(3))]);
        let (policies, policy) = ("/spec/behavior/scaleDown/policies/0", "spec.behavior.scaleDown.policies[0]");
        let of = |key: &str| format!("{policy}.{key}");
        let in_policy = |key: &str| format!("{policies}/{key}");
        let window = "spec.behavior.scaleDown.stabilizationWindowSeconds";
        good.refuses(&[
            ("/spec/minReplicas", json!(0), "spec.minReplicas", "must be greater than or equal to 1"),
            ("/spec/minReplicas", json!(80), "spec.maxReplicas", "must be greater than or equal to `minReplicas`"),
            ("/spec/maxReplicas", Value::Null, "spec.maxReplicas", "Invalid value: 0: must be greater than 0"),
            ("/spec/scaleTargetRef", Value::Null, "spec.scaleTargetRef.kind", "Required value"),
            ("/spec/scaleTargetRef/kind", json!("//"), "spec.scaleTargetRef.kind", "may not contain '/'"),
            ("/spec/scaleTargetRef/name", Value::Null, "spec.scaleTargetRef.name", "Required value"),
            ("/spec/behavior/scaleDown/stabilizationWindowSeconds", json!(3601), window, "or equal to 3600"),
            ("/spec/behavior/scaleDown/stabilizationWindowSeconds", json!(-1), window, "or equal to zero"),
            (
                "/spec/behavior/scaleDown/selectPolicy",
                json!("All"),
                "spec.behavior.scaleDown.selectPolicy",
                "\"Disabled\", \"Max\", \"Min\"",
            ),
            (&in_policy("type"), json!("Part"), &of("type"), "\"Percent\", \"Pods\""),
            (&in_policy("value"), json!(0), &of("value"), "must be greater than zero"),
            (&in_policy("periodSeconds"), json!(1801), &of("periodSeconds"), "must be less than or equal to 1800"),
        ]);
    }

    #[test]
    fn metrics() {
        let of_pods = json!({"type": "Pods", "pods": {
            "metric": {"name": "requests"}, "target": {"type": "AverageValue", "averageValue": "10"},
        }});
        let outside = json!({"type": "External", "external": {
            "metric": {"name": "queue"}, "target": {"type": "Value", "value": "30"},
        }});
        let of_object = json!({"type": "Object", "object": {
            "metric": {"name": "requests"}, "target": {"type": "Value", "value": "2k"},
            "describedObject": {"kind": "Ingress", "name": "web"},
        }});
        let of_container = json!({"type": "ContainerResource", "containerResource": {
            "name": "cpu", "container": "main", "target": {"type": "Utilization", "averageUtilization": 80},
        }});
        let good = good(json!([processors(), of_pods, outside, of_object, of_container]));
        good.takes(&[("/spec/minReplicas", json!(0))]);
        let at = |index: u8, key: &str| format!("spec.metrics[{index}].{key}");
        good.refuses(&[
            ("/spec/metrics/0/type", json!("Cpu"), &at(0, "type"), "\"ContainerResource\", \"External\", \"Object\""),
            ("/spec/metrics/0/type", json!("Pods"), &at(0, "pods"), "must populate information"),
            ("/spec/metrics/0/type", json!("Pods"), &at(0, "resource"), "must populate the given metric source only"),
            ("/spec/metrics/0/resource/name", Value::Null, &at(0, "resource.name"), "must specify a resource name"),
            (
                "/spec/metrics/0/resource/target/averageUtilization",
                json!(-1),
                &at(0, "resource.target.averageUtilization"),
                "must be greater than 0",
            ),
            ("/spec/metrics/0/resource/target/type", json!("Rate"), &at(0, "resource.target.type"), "must be either"),
            (
                "/spec/metrics/0/resource/target/averageUtilization",
                Value::Null,
                &at(0, "resource.target.averageUtilization"),
                "must set either a target raw value or a target utilization",
            ),
            ("/spec/metrics/1/pods/metric/name", Value::Null, &at(1, "pods.metric.name"), "must specify a metric name"),
            ("/spec/metrics/1/pods/target/averageValue", json!("0"), &at(1, "pods.target.averageValue"), "positive"),
            ("/spec/metrics/2/external/target/value", Value::Null, &at(2, "external.target.averageValue"), "per-pod"),
            (
                "/spec/metrics/3/object/describedObject/name",
                Value::Null,
                &at(3, "object.describedObject.name"),
                "Required",
            ),
            (
                "/spec/metrics/4/containerResource/container",
                Value::Null,
                &at(4, "containerResource.container"),
                "Required",
            ),
        ]);
    }
}
