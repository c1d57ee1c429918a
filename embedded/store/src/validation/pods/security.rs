//! Rules of security contexts: whose rights the processes of a pod have.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::one_of;
use super::volumes;
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};

/// Longest names of a kernel parameter and of an AppArmor profile, in bytes.
const MAX_SYSCTL: usize = 253;
const MAX_PROFILE: usize = 4095;

/// The context of a pod.
pub(super) fn pod(path: &str, spec: &Value, errors: &mut FieldErrors) {
    let Some(context) = given(spec, "securityContext") else { return };
    let path = format!("{path}.securityContext");
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(format!("{path}.{key}"), int_at(context, &format!("/{key}")), errors);
    }
    for (index, group) in items(context, "/supplementalGroups").iter().enumerate() {
        id(format!("{path}.supplementalGroups[{index}]"), group.as_i64(), errors);
    }
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let problem = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(format!("{path}.shareProcessNamespace"), &json!(true), problem);
    }
    sysctls(&format!("{path}.sysctls"), items(context, "/sysctls"), errors);
    one_of(context, "fsGroupChangePolicy", &path, &["Always", "OnRootMismatch"], errors);
    one_of(context, "supplementalGroupsPolicy", &path, &["Merge", "Strict"], errors);
    profiles(&path, context, errors);
}

/// The context of a container.
pub(super) fn container(path: &str, container: &Value, errors: &mut FieldErrors) {
    let Some(context) = given(container, "securityContext") else { return };
    let path = format!("{path}.securityContext");
    for key in ["runAsUser", "runAsGroup"] {
        id(format!("{path}.{key}"), int_at(context, &format!("/{key}")), errors);
    }
    one_of(context, "procMount", &path, &["Default", "Unmasked"], errors);
    profiles(&path, context, errors);
    if context["allowPrivilegeEscalation"] != false {
        return;
    }
    let cannot = "cannot set `allowPrivilegeEscalation` to false and";
    if context["privileged"] == true {
        errors.invalid(path.as_str(), context, &format!("{cannot} `privileged` to true"));
    }
    if items(context, "/capabilities/add").iter().any(|capability| capability == "CAP_SYS_ADMIN") {
        errors.invalid(path, context, &format!("{cannot} `capabilities.Add` CAP_SYS_ADMIN"));
    }
}

/// The number of a user or a group, if there is one.
fn id(field: String, number: Option<i64>, errors: &mut FieldErrors) {
    let most = i64::from(u32::MAX);
    if let Some(number) = number.filter(|number| !(0..=most).contains(number)) {
        errors.invalid(field, &json!(number), &format!("must be between 0 and {most}, inclusive"));
    }
}

fn sysctls(path: &str, sysctls: &[Value], errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let (field, name) = (format!("{path}[{index}].name"), str_at(sysctl, "/name"));
        if name.is_empty() {
            errors.required(field, "");
        } else if name.len() > MAX_SYSCTL || !name.split(['.', '/']).all(is_sysctl_part) {
            let part = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            let problem = format!("must have at most {MAX_SYSCTL} characters and match regex ^({part}[\\./])*{part}$");
            errors.invalid(field, &json!(name), &problem);
        } else if !seen.insert(name) {
            errors.duplicate(field, &json!(name));
        }
    }
}

fn is_sysctl_part(part: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || c == '-' || c == '_')
}

/// What the kernel keeps processes from.
fn profiles(path: &str, context: &Value, errors: &mut FieldErrors) {
    for (key, what) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let Some(profile) = given(context, key) else { continue };
        let path = format!("{path}.{key}");
        let kind = str_at(profile, "/type");
        if kind.is_empty() {
            errors.required(format!("{path}.type"), &format!("type is required when {key} is set"));
        } else {
            one_of(profile, "type", &path, &["Localhost", "RuntimeDefault", "Unconfined"], errors);
        }
        let (field, file) = (format!("{path}.localhostProfile"), given(profile, "localhostProfile"));
        match (kind, file) {
            ("Localhost", None) => errors.required(field, &format!("must be set when {what} type is Localhost")),
            ("Localhost", Some(file)) if key == "seccompProfile" => {
                volumes::local_path(&field, file.as_str().unwrap_or_default(), errors);
            }
            ("Localhost", Some(file)) => app_armor(field, file.as_str().unwrap_or_default(), errors),
            (_, Some(_)) if key == "seccompProfile" => {
                errors.invalid(field, profile, "can only be set when seccomp type is Localhost");
            }
            ("RuntimeDefault" | "Unconfined", Some(file)) => {
                errors.invalid(field, file, "can only be set when AppArmor type is Localhost");
            }
            _ => {}
        }
    }
}

fn app_armor(field: String, profile: &str, errors: &mut FieldErrors) {
    if profile.trim() != profile {
        errors.invalid(field.as_str(), &json!(profile), "must not be padded with whitespace");
    } else if profile.is_empty() {
        errors.required(field.as_str(), "must be set when AppArmor type is Localhost");
    }
    if profile.len() > MAX_PROFILE {
        errors.too_long(field, MAX_PROFILE);
    }
}
