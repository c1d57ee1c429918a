//! Errors as people are told them.

use std::error::Error;

use kube::client::AuthError;

/// An error with its causes, each told once: many libraries' errors show their cause in their own text and name it as their source as well.
/// What an API server answered is told in its words; the client's error shows the whole answer as Rust prints it.
pub fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let (said, cause) = of_client(error).unwrap_or_else(|| (error.to_string(), error.source()));
        if text.is_empty() {
            text = said;
        } else if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause;
    }
    text
}

/// What is said of an error of the Kubernetes client in place of its own text, and what remains to be told of its cause.
fn of_client<'a>(error: &'a (dyn Error + 'static)) -> Option<(String, Option<&'a (dyn Error + 'static)>)> {
    if let Some(error) = error.downcast_ref::<AuthError>() {
        return plugin(error).map(|said| (said, None));
    }
    match error.downcast_ref::<kube::Error>()? {
        kube::Error::Api(status) if status.message.trim_start().starts_with('<') => {
            let code = status.code;
            let said = format!(
                "a page for browsers in place of an API server's answer (status {code}), as of a proxy, or a portal to log in at"
            );
            Some((said, None))
        }
        kube::Error::Api(status) if !status.message.is_empty() => Some((status.message.clone(), None)),
        // Their texts are that of the cause, with a word before.
        kube::Error::Auth(cause) => {
            let cause: &(dyn Error + 'static) = cause;
            Some((String::new(), Some(cause)))
        }
        kube::Error::Service(cause) => {
            let cause: &(dyn Error + 'static) = &**cause;
            Some((String::new(), Some(cause)))
        }
        _ => None,
    }
}

/// What is said of a command that should have given credentials: the client shows all that it printed, which may be a token.
fn plugin(error: &AuthError) -> Option<String> {
    match error {
        AuthError::AuthExecStart(cause) => Some(format!("the credential plugin cannot be run: {cause}")),
        AuthError::AuthExecRun { out, .. } => {
            let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            // One that may ask somebody says it to them.
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            Some(format!("the credential plugin failed ({}){said}", out.status))
        }
        AuthError::AuthExecParse(_) => Some("the credential plugin printed no ExecCredential".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use kube::config::KubeconfigError;
    use kube::core::Status;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("it does not work")]
    struct Silent(#[source] io::Error);

    #[test]
    fn a_cause_is_told_once_whether_or_not_the_error_shows_it() {
        let missing = || io::Error::other("no such thing");
        assert_eq!(told(&Silent(missing())), "it does not work: no such thing");
        let shown = KubeconfigError::ReadConfig(missing(), "here".into());
        let text = told(&shown);
        assert_eq!(text.matches("no such thing").count(), 1, "{text}");
        assert_eq!(text, shown.to_string());
    }

    #[test]
    fn what_a_command_printed_for_credentials_is_not_told() {
        let out =
            std::process::Command::new("sh").args(["-c", "echo tok3n; echo expired >&2; exit 3"]).output().unwrap();
        let failed =
            || AuthError::AuthExecRun { cmd: "sh -c KUBERNETES_EXEC_INFO".to_owned(), out: Box::new(out.clone()) };
        // At first, and when they are asked for anew.
        for error in [kube::Error::Auth(failed()), kube::Error::Service(Box::new(failed()))] {
            assert!(error.to_string().contains("tok3n"), "the control: {error}");
            assert_eq!(told(&error), "the credential plugin failed (exit status: 3): expired");
        }
    }

    #[test]
    fn an_api_server_is_told_in_its_words() {
        let refused = kube::Error::Api(Status::failure("who are you?", "Unauthorized").with_code(401).boxed());
        assert!(refused.to_string().contains("Status {"), "the control: {refused}");
        assert_eq!(told(&refused), "who are you?");
    }

    #[test]
    fn a_page_is_not_told_whole() {
        let page = Status::failure("<!DOCTYPE html><html>Welcome to our hotel</html>", "Failed to parse error data");
        let text = told(&kube::Error::Api(page.with_code(511).boxed()));
        assert!(text.starts_with("a page for browsers") && text.contains("511") && !text.contains("hotel"), "{text}");
    }
}
