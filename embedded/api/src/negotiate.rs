//! The form of an answer, from the `Accept` header.

use http::HeaderMap;
use http::header::ACCEPT;
use meshgate_store::Status;

/// The forms an answer can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The objects themselves, as JSON.
    Json,
    /// The objects themselves, as YAML.
    Yaml,
    /// `meta.k8s.io` Table.
    Table(&'static str),
    /// `PartialObjectMetadata`, or a list of it: metadata only.
    Metadata(&'static str),
    /// `apidiscovery.k8s.io` `APIGroupDiscoveryList`.
    Discovery,
}

/// The first form that the client accepts and we have. Protobuf answers are never made: every client that accepts
/// them accepts JSON too and goes by the answer's content type. 406 when nothing fits.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form, Status> {
    let mut entries = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .peekable();
    if entries.peek().is_none() {
        return Ok(Form::Json);
    }
    entries.find_map(entry_form).ok_or_else(|| {
        let accepted = "application/json, application/yaml";
        Status::new(406, "NotAcceptable", format!("only the following media types are accepted: {accepted}"))
    })
}

fn entry_form(entry: &str) -> Option<Form> {
    let mut parts = entry.split(';').map(str::trim);
    let media_type = parts.next()?;
    let (mut kind, mut group, mut version) = ("", "", "");
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key {
            "as" => kind = value,
            "g" => group = value,
            "v" => version = value,
            _ => {}
        }
    }
    let json = matches!(media_type, "application/json" | "application/*" | "*/*");
    match (kind, group) {
        ("", _) if json => Some(Form::Json),
        ("", _) if matches!(media_type, "application/yaml" | "text/yaml") => Some(Form::Yaml),
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io") if json && version == "v2" => Some(Form::Discovery),
        ("Table", "meta.k8s.io") if json => meta_version(version).map(Form::Table),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io") if json => {
            meta_version(version).map(Form::Metadata)
        }
        _ => None,
    }
}

fn meta_version(version: &str) -> Option<&'static str> {
    match version {
        "v1" => Some("meta.k8s.io/v1"),
        "v1beta1" => Some("meta.k8s.io/v1beta1"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn form_of(accept: &'static str) -> Result<Form, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        form(&headers)
    }

    #[test]
    fn what_clients_send() {
        assert_eq!(form(&HeaderMap::new()).unwrap(), Form::Json);
        assert_eq!(form_of("application/json, */*").unwrap(), Form::Json);
        assert_eq!(form_of("application/vnd.kubernetes.protobuf,application/json").unwrap(), Form::Json);
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form_of(kubectl).unwrap(), Form::Table("meta.k8s.io/v1"));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(form_of(metadata).unwrap(), Form::Metadata("meta.k8s.io/v1"));
        let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(form_of(discovery).unwrap(), Form::Discovery);
        assert_eq!(
            form_of("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json")
                .unwrap(),
            Form::Json
        );
    }

    #[test]
    fn nothing_acceptable_is_a_406() {
        assert_eq!(form_of("text/html").unwrap_err().code, 406);
    }
}
