//! Objects that an API server does not take, as opposed to one that cannot be asked.

/// What an API server said to an object that it does not take.
#[derive(Debug, thiserror::Error)]
#[error("cannot apply {what}: {message}")]
pub(crate) struct Refused {
    /// The object.
    pub what: String,
    /// The API server's words.
    pub message: String,
}

/// Whether a status of an API server is about what it was asked, so that it would say the same again.
pub(crate) fn refuses(code: u16) -> bool {
    // It timed out, somebody else wrote meanwhile, too many ask.
    (400..500).contains(&code) && ![408, 409, 429].contains(&code)
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
    use kube::core::Status;

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
        assert!([400, 403, 404, 422].into_iter().all(refuses));
        assert!(![200, 408, 409, 429, 500, 503].into_iter().any(refuses));
    }
}
