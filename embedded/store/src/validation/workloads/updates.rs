//! Rules of how the pods of a workload are replaced, and of what may change of one.

use serde_json::{Map, Value, json};

use super::super::{not_negative, quantities};
use crate::invalid::FieldErrors;
use crate::json::{given, str_at};

/// The strategy of a Deployment.
pub(super) fn deployment(strategy: &Value, errors: &mut FieldErrors) {
    let path = "spec.strategy";
    let rolling = given(strategy, "rollingUpdate");
    match str_at(strategy, "/type") {
        "Recreate" => {
            if rolling.is_some() {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                errors.forbidden(format!("{path}.rollingUpdate"), why);
            }
        }
        "RollingUpdate" => {
            let path = format!("{path}.rollingUpdate");
            let [most, more] =
                ["maxUnavailable", "maxSurge"].map(|key| rolling.and_then(|rolling| given(rolling, key)));
            for (key, count) in [("maxUnavailable", most), ("maxSurge", more)] {
                if let Some(count) = count {
                    count_or_percent(&format!("{path}.{key}"), count, errors);
                }
            }
            let Some(most) = most else { return };
            if number(most) == 0 && more.is_some_and(|more| number(more) == 0) {
                let problem = "may not be 0 when `maxSurge` is 0";
                errors.invalid(format!("{path}.maxUnavailable"), most, problem);
            }
            at_most_all(&format!("{path}.maxUnavailable"), most, errors);
        }
        "" => {}
        _ => errors.unsupported(path, strategy, &["Recreate", "RollingUpdate"]),
    }
}

/// The update strategy of a DaemonSet.
pub(super) fn daemon_set(strategy: &Value, errors: &mut FieldErrors) {
    let path = "spec.updateStrategy";
    match str_at(strategy, "/type") {
        "OnDelete" | "" => {}
        "RollingUpdate" => {
            let path = format!("{path}.rollingUpdate");
            let Some(rolling) = given(strategy, "rollingUpdate") else { return };
            let counts = ["maxUnavailable", "maxSurge"].map(|key| (key, given(rolling, key)));
            for (key, count) in counts {
                if let Some(count) = count {
                    count_or_percent(&format!("{path}.{key}"), count, errors);
                    at_most_all(&format!("{path}.{key}"), count, errors);
                }
            }
            match counts.map(|(_, count)| count.is_some_and(|count| number(count) != 0)) {
                [true, true] => {
                    let problem = "may not be set when maxUnavailable is non-zero";
                    errors.invalid(format!("{path}.maxSurge"), &rolling["maxSurge"], problem);
                }
                [false, false] => {
                    errors.required(format!("{path}.maxUnavailable"), "cannot be 0 when maxSurge is 0");
                }
                _ => {}
            }
        }
        _ => errors.unsupported(path, strategy, &["RollingUpdate", "OnDelete"]),
    }
}

/// The update strategy of a StatefulSet.
pub(super) fn stateful_set(strategy: &Value, errors: &mut FieldErrors) {
    let path = "spec.updateStrategy";
    let rolling = given(strategy, "rollingUpdate");
    match (str_at(strategy, "/type"), rolling) {
        ("OnDelete", Some(rolling)) => {
            let problem = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(format!("{path}.rollingUpdate"), rolling, problem);
        }
        ("RollingUpdate", Some(rolling)) => {
            not_negative(&format!("{path}.rollingUpdate"), rolling, &["partition"], errors);
        }
        ("OnDelete" | "RollingUpdate" | "", _) => {}
        _ => errors.invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

/// Refuses what is neither a number of pods nor a part of all of them.
pub(super) fn count_or_percent(field: &str, count: &Value, errors: &mut FieldErrors) {
    if let Some(text) = count.as_str() {
        if percent(count).is_none() {
            let problem = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                           '93%', regex used for validation is '[0-9]+%')";
            errors.invalid(field, &json!(text), problem);
        }
    } else if count.as_i64().is_some_and(|count| count < 0) {
        errors.invalid(field, count, "must be greater than or equal to 0");
    }
}

/// Refuses more than all.
pub(super) fn at_most_all(field: &str, count: &Value, errors: &mut FieldErrors) {
    if percent(count).is_some_and(|percent| percent > 100) {
        errors.invalid(field, count, "must not be greater than 100%");
    }
}

/// The number in `25%`, as far as it can be told from others.
fn percent(count: &Value) -> Option<u64> {
    let digits = count.as_str()?.strip_suffix('%')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// What is compared with nothing at all, be it a number or a percentage.
fn number(count: &Value) -> i64 {
    match percent(count) {
        Some(percent) => i64::try_from(percent).unwrap_or(i64::MAX),
        None => count.as_str().map_or_else(|| count.as_i64(), |text| text.parse().ok()).unwrap_or(0),
    }
}

/// What of a StatefulSet may change.
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// Refuses changes of everything else, given the specs.
pub(super) fn of_stateful_set(old: &Value, new: &Value, errors: &mut FieldErrors) {
    let mut keys = keys(old).chain(keys(new)).filter(|key| !CHANGEABLE.contains(&key.as_str()));
    if keys.any(|key| !alike(&old[key.as_str()], &new[key.as_str()])) {
        errors.forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

fn keys(value: &Value) -> impl Iterator<Item = &String> {
    value.as_object().into_iter().flat_map(Map::keys)
}

/// Whether two values mean the same: clients that know the types write what is empty, and quantities in one way.
fn alike(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Object(_), Value::Object(_) | Value::Null) | (Value::Null, Value::Object(_)) => {
            keys(one).chain(keys(two)).all(|key| alike(&one[key.as_str()], &two[key.as_str()]))
        }
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| alike(one, two))
        }
        (Value::Null, empty) | (empty, Value::Null) => {
            empty.is_null() || empty == "" || empty == false || empty.as_array().is_some_and(Vec::is_empty)
        }
        _ => one == two || quantities::nanos(one).is_some_and(|amount| quantities::nanos(two) == Some(amount)),
    }
}
