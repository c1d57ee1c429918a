//! Errors as people are told them.

use std::error::Error;

/// An error with its causes, each told once: many libraries' errors show their cause in their own text and name it as their source as well.
/// What an API server answered is told in its words; the client's error shows the whole answer as Rust prints it.
pub fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let (said, cause) = match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) if !status.message.is_empty() => (status.message.clone(), None),
            _ => (error.to_string(), error.source()),
        };
        if text.is_empty() {
            text = said;
        } else if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause;
    }
    text
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
    fn an_api_server_is_told_in_its_words() {
        let refused = kube::Error::Api(Status::failure("who are you?", "Unauthorized").with_code(401).boxed());
        assert!(refused.to_string().contains("Status {"), "the control: {refused}");
        assert_eq!(told(&refused), "who are you?");
    }
}
