//! YAML streams: split into documents, inject each, put them together again.

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::{Entry, Options, Report, inject_object, yaml};

/// Why a stream could not be injected. Nothing is injected then.
#[derive(Debug, Error)]
pub enum InjectError {
    /// A document is not YAML, or not YAML that JSON can express.
    #[error("document {number} of the manifests: expected a Kubernetes object as YAML or JSON: {cause}")]
    Parse {
        /// Which document, from 1.
        number: usize,
        /// What the parser found, with its line inside the document.
        cause: serde_yaml::Error,
    },
    /// A document is YAML, but no object.
    #[error(
        "document {number} of the manifests: expected a Kubernetes object, with apiVersion and kind; found {found}"
    )]
    NoObject {
        /// Which document, from 1.
        number: usize,
        /// What it is.
        found: &'static str,
    },
}

/// An injected stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// The manifests, as a YAML stream.
    pub yaml: String,
    /// What happened to each object.
    pub report: Report,
}

/// Injects every workload of a YAML (or JSON) stream. See [`inject_with_report`].
pub fn inject(manifests: &str, options: &Options) -> Result<String, InjectError> {
    inject_with_report(manifests, options).map(|injection| injection.yaml)
}

/// Injects every workload of a YAML (or JSON) stream and reports on each object.
///
/// A document in which nothing was changed keeps its text; an injected one is written anew, which loses its comments.
pub fn inject_with_report(manifests: &str, options: &Options) -> Result<Injection, InjectError> {
    let mut documents = Vec::new();
    let mut report = Report::default();
    for (index, text) in split(manifests).into_iter().enumerate() {
        let number = index + 1;
        let mut object = Value::deserialize(serde_yaml::Deserializer::from_str(&text))
            .map_err(|cause| InjectError::Parse { number, cause })?;
        if object.is_null() {
            continue;
        }
        if let Some(found) = other_than_object(&object) {
            return Err(InjectError::NoObject { number, found });
        }
        let outcome = inject_object(&mut object, options);
        documents.push(if outcome.changed() { yaml::write(&object) } else { text });
        report.entries.push(Entry::new(&object, outcome));
    }
    Ok(Injection { yaml: documents.join("---\n"), report })
}

/// What a document is that is no object of Kubernetes.
fn other_than_object(document: &Value) -> Option<&'static str> {
    match document {
        Value::Object(fields) if fields.get("kind").is_some_and(Value::is_string) => None,
        Value::Object(_) => Some("fields without a kind"),
        Value::Array(_) => Some("a list, which is no object of the kind List"),
        Value::String(_) => Some("a text"),
        Value::Number(_) => Some("a number"),
        Value::Bool(_) => Some("a truth value"),
        Value::Null => Some("nothing"),
    }
}

/// Objects as a YAML stream.
pub fn to_yaml(objects: &[Value]) -> String {
    objects.iter().map(yaml::write).collect::<Vec<_>>().join("---\n")
}

/// The documents of a stream. A line that starts with `---` or is `...` ends a document wherever it stands, inside block
/// scalars too, so that lines are all there is to look at.
fn split(manifests: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in manifests.strip_prefix('\u{feff}').unwrap_or(manifests).lines() {
        let starts = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']));
        if let Some(rest) = starts {
            documents.push(String::new());
            // `--- {kind: Pod}` and `--- # comment` put content on the marker's line.
            if rest.trim().is_empty() {
                continue;
            }
            push_line(&mut documents, rest.trim_start());
        } else if line.trim_end() == "..." {
            documents.push(String::new());
        } else {
            push_line(&mut documents, line);
        }
    }
    documents
}

fn push_line(documents: &mut [String], line: &str) {
    if let Some(document) = documents.last_mut() {
        document.push_str(line);
        document.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_where_yaml_does() {
        let stream = "# first\na: 1\n---\n--- # second\nb: |\n  ---\n  text\n...\nc: 3\r\n---\r\nd: 4";
        assert_eq!(split(stream), ["# first\na: 1\n", "", "# second\nb: |\n  ---\n  text\n", "c: 3\n", "d: 4\n"]);
    }

    #[test]
    fn untouched_documents_keep_their_text() {
        let yaml = "# a comment\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"x\"}\ndata: {on: 'yes'}\n";
        let injection = inject_with_report(yaml, &Options::default()).unwrap();
        assert_eq!(injection.yaml, yaml);
        assert_eq!(injection.report.to_string(), "configmap \"x\" skipped\n");
    }

    #[test]
    fn broken_yaml_names_its_document() {
        let error = inject("kind: A\n---\nb: [\n", &Options::default()).unwrap_err().to_string();
        assert!(error.starts_with("document 2 of the manifests: expected"), "{error}");
    }

    #[test]
    fn what_is_no_object_is_named() {
        let error = |yaml: &str| inject(yaml, &Options::default()).unwrap_err().to_string();
        for (yaml, found) in [
            ("deploy.yaml\n", "found a text"),
            ("- kind: Pod\n", "found a list, which is no object of the kind List"),
            ("replicas: 2\n", "found fields without a kind"),
            ("kind: ConfigMap\n---\n---\n7\n", "found a number"),
        ] {
            let error = error(yaml);
            assert!(error.ends_with(found), "{error}");
        }
        assert!(
            error("kind: A\n---\n---\n7\n").starts_with("document 3 of the manifests: expected a Kubernetes object")
        );
    }
}
