//! Who wants to see what: the configurations, read anew for every write, because the store has them at hand.

use meshgate_machinery::selector::LabelSelector;
use meshgate_store::{GroupResource, Selectors, Status, Store, Subresource};
use serde::Deserialize;
use serde_json::Value;

use crate::review::Question;
use crate::{Operation, Request};

const GROUP: &str = "admissionregistration.k8s.io";

/// Which webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Those that may change an object.
    Mutating,
    /// Those that only judge it.
    Validating,
}

/// One webhook of a configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hook {
    pub(crate) name: String,
    pub(crate) client_config: ClientConfig,
    /// The defaults of the store fill in every field that has one.
    pub(crate) timeout_seconds: u64,
    #[serde(default)]
    rules: Vec<Rule>,
    failure_policy: String,
    side_effects: String,
    namespace_selector: Value,
    object_selector: Value,
}

/// Where a webhook is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientConfig {
    pub(crate) url: Option<String>,
    pub(crate) service: Option<Service>,
    /// PEM in base64; who signs the webhook's certificate.
    #[serde(default)]
    pub(crate) ca_bundle: String,
}

/// A webhook's Service.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) path: String,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    operations: Vec<String>,
    api_groups: Vec<String>,
    api_versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

/// The webhooks with a rule for the resource of a request, in the order in which they are asked.
pub(crate) fn of(store: &Store, phase: Phase, request: &Request) -> Result<Vec<Hook>, Status> {
    // Nobody may lock out the configurations themselves.
    if request.resource.group == GROUP {
        return Ok(Vec::new());
    }
    let plural = match phase {
        Phase::Mutating => "mutatingwebhookconfigurations",
        Phase::Validating => "validatingwebhookconfigurations",
    };
    // They come ordered by name.
    let configurations = store.list(&GroupResource::new(GROUP, plural), None, &Selectors::default())?.items;
    let mut hooks = Vec::new();
    for webhook in configurations.iter().filter_map(|configuration| configuration["webhooks"].as_array()).flatten() {
        let hook = Hook::deserialize(webhook)
            .map_err(|error| Status::internal(format!("a webhook of {plural} cannot be read: {error}: {webhook}")))?;
        if hook.rules.iter().any(|rule| rule.covers(request)) {
            hooks.push(hook);
        }
    }
    Ok(hooks)
}

impl Hook {
    /// Whether a rule names the resource and the operation.
    pub(crate) fn wants(&self, request: &Request, operation: Operation) -> bool {
        self.rules.iter().any(|rule| named(&rule.operations, operation.name()) && rule.covers(request))
    }

    /// Whether the selectors select the object, as it is now or as it was, and its namespace.
    pub(crate) fn selects(&self, store: &Store, question: &Question<'_>, object: &Value) -> Result<bool, Status> {
        let selector = |text: &Value| {
            LabelSelector::from_object(text)
                .map_err(|error| Status::internal(format!("a selector of webhook {:?}: {error}", self.name)))
        };
        let objects = selector(&self.object_selector)?;
        let old = question.old();
        if !objects.is_empty() && ![object, old].iter().any(|it| it.is_object() && objects.matches(it)) {
            return Ok(false);
        }
        let namespaces = selector(&self.namespace_selector)?;
        let request = question.request;
        if namespaces.is_empty() {
            return Ok(true);
        }
        if is_namespace(request) {
            return Ok(namespaces.matches(if object.is_object() { object } else { old }));
        }
        if request.namespace.is_empty() {
            return Ok(true);
        }
        Ok(namespaces.matches(&*store.get(&GroupResource::new("", "namespaces"), "", &request.namespace)?))
    }

    /// Whether a write goes on without its answer.
    pub(crate) fn is_optional(&self) -> bool {
        self.failure_policy == "Ignore"
    }

    /// Whether asking it changes nothing but the answer.
    pub(crate) fn may_see_dry_runs(&self) -> bool {
        matches!(self.side_effects.as_str(), "None" | "NoneOnDryRun")
    }
}

impl Rule {
    /// All but the operation.
    fn covers(&self, request: &Request) -> bool {
        let subresource = match request.subresource {
            Subresource::Main => "",
            Subresource::Status => "status",
            Subresource::Scale => "scale",
        };
        let resources = self.resources.iter().any(|rule| {
            let (resource, sub) = rule.split_once('/').unwrap_or((rule, ""));
            (resource == "*" || resource == request.resource.plural) && (sub == "*" || sub == subresource)
        });
        let namespaced = !request.namespace.is_empty() && !is_namespace(request);
        let scope = match self.scope.as_str() {
            "Namespaced" => namespaced,
            "Cluster" => !namespaced,
            _ => true,
        };
        resources
            && scope
            && named(&self.api_groups, &request.resource.group)
            && named(&self.api_versions, &request.version)
    }
}

fn is_namespace(request: &Request) -> bool {
    request.resource.group.is_empty() && request.resource.plural == "namespaces"
}

/// Whether a list has a word, or `*`.
fn named(list: &[String], word: &str) -> bool {
    list.iter().any(|one| one == "*" || one == word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(group: &str, plural: &str, namespace: &str, subresource: Subresource) -> Request {
        Request {
            user: Value::Null,
            resource: GroupResource::new(group, plural),
            kind: String::new(),
            version: "v1".into(),
            namespace: namespace.into(),
            name: "x".into(),
            subresource,
        }
    }

    fn rule(groups: &[&str], resources: &[&str], scope: &str) -> Rule {
        let operations = ["CREATE"];
        let value = json!({"operations": operations, "apiGroups": groups, "apiVersions": ["v1"], "resources": resources, "scope": scope});
        Rule::deserialize(value).unwrap()
    }

    #[test]
    fn rules_cover_resources_as_on_kubernetes() {
        let pod = request("", "pods", "default", Subresource::Main);
        let status = request("", "pods", "default", Subresource::Status);
        let node = request("", "nodes", "", Subresource::Main);
        let namespace = request("", "namespaces", "", Subresource::Main);
        for (resources, scope, covered) in [
            (&["pods"][..], "*", [true, false, false, false]),
            (&["pods/status"], "*", [false, true, false, false]),
            (&["pods/*"], "*", [true, true, false, false]),
            (&["*"], "*", [true, false, true, true]),
            (&["*/*"], "*", [true, true, true, true]),
            (&["*/*"], "Namespaced", [true, true, false, false]),
            (&["*/*"], "Cluster", [false, false, true, true]),
            (&["services", "nodes"], "*", [false, false, true, false]),
        ] {
            let rule = rule(&[""], resources, scope);
            assert_eq!([&pod, &status, &node, &namespace].map(|it| rule.covers(it)), covered, "{resources:?} {scope}");
        }
        assert!(!rule(&["apps"], &["*"], "*").covers(&pod));
        assert!(rule(&["*"], &["*"], "*").covers(&pod));
        let other = Request { version: "v2".into(), ..pod };
        assert!(!rule(&["*"], &["*"], "*").covers(&other));
    }
}
