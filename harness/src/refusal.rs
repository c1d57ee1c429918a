//! Objects that an API server does not take, as opposed to one that cannot be asked.

use kube::core::Status;

/// What an API server said to an object that it does not take.
#[derive(Debug, thiserror::Error)]
#[error("cannot apply {what}: {message}")]
pub(crate) struct Refused {
    /// The object.
    pub what: String,
    /// The API server's words.
    pub message: String,
}

/// What an API server says, with 500, of an applied object that is not of its type.
const UNTYPED: &str = "failed to create typed patch object";

/// Whether a status of an API server is about what it was asked, so that it would say the same again.
pub(crate) fn refuses(status: &Status) -> bool {
    // It timed out, somebody else wrote meanwhile, too many ask.
    let passes = [408, 409, 429].contains(&status.code);
    (400..500).contains(&status.code) && !passes || status.message.starts_with(UNTYPED)
}

/// Whether an object was not taken for what it says: that of a kind which nobody serves is not either.
pub(crate) fn is_refusal(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some()
        || matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Discovery(_)))
        || matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_server_that_cannot_be_asked() {
        let refused = || Refused { what: "Ingress a/b".to_owned(), message: "unknown field".to_owned() };
        assert!(is_refusal(&anyhow::Error::from(refused())));
        assert!(is_refusal(&anyhow::Error::from(refused()).context("tls.yaml")), "with its file");
        let api = |code| kube::Error::Api(Box::new(Status { code, ..Status::default() }));
        let unknown = Err::<(), _>(api(404)).context("the cluster does not serve example.com/v1 Route");
        assert!(is_refusal(&unknown.unwrap_err()), "a group that nobody serves");
        assert!(!is_refusal(&anyhow::Error::from(api(503))));
        assert!(!is_refusal(&anyhow!("no route to host")));
        let refused = |code| refuses(&Status { code, ..Status::default() });
        assert!([400, 403, 404, 422].into_iter().all(refused));
        assert!(![200, 408, 409, 429, 500, 503].into_iter().any(refused));
        let untyped =
            "failed to create typed patch object (a/b; e.io/v1, Kind=C): .spec.x: field not declared in schema";
        assert!(refuses(&Status { code: 500, message: untyped.to_owned(), ..Status::default() }));
    }
}
