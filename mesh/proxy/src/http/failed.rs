//! Where on a request's way an error came up: what the application is told besides the error.
//!
//! As with Linkerd's proxy, of which this was observed:
//!
//! | what | text |
//! |---|---|
//! | no endpoint in time | `logical service 10.96.0.12:80: route default.http: backend Service.ns.web:80: Service.ns.web:80: service in fail-fast` |
//! | the same, known already | `logical service 10.96.0.12:80: route default.http: service unavailable` |
//! | a ServiceProfile's timeout | `logical service web.ns.svc.cluster.local:80: HTTP response timeout after 500ms` |
//! | no connection | `endpoint 10.9.0.11:9999: client error (Connect)` |

use std::{fmt, sync::Arc};

use super::ProxyError;

/// An error, and what the request was for when it came up, as far as that was known.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: ProxyError,
    /// Boxed, for most requests do not fail, and each has room for this.
    place: Box<Place>,
}

#[derive(Debug, Default)]
struct Place {
    service: Option<String>,
    route: Option<Arc<str>>,
    backend: Option<Arc<str>>,
}

impl Failed {
    /// It came up with a backend of the route.
    pub(crate) fn with_backend(mut self, backend: &Arc<str>) -> Self {
        self.place.backend = Some(Arc::clone(backend));
        self
    }

    /// It came up on a route of a policy.
    pub(crate) fn on_route(mut self, route: &Arc<str>) -> Self {
        self.place.route = Some(Arc::clone(route));
        self
    }

    /// It came up on the way to a service, by address or by name.
    pub(crate) fn for_service(mut self, service: &impl fmt::Display) -> Self {
        // The others say by themselves what they are about.
        let located = matches!(
            self.error,
            ProxyError::FailFast(_)
                | ProxyError::LoadShed
                | ProxyError::ResponseTimeout(_)
                | ProxyError::Overdue(_)
                | ProxyError::NoDispatcher(_)
        );
        self.place.service = located.then(|| service.to_string());
        self
    }

    /// What the log says: with what the kernel said, which the application is not told.
    pub(crate) fn in_full(&self) -> String {
        self.place() + &self.error.in_full()
    }

    fn place(&self) -> String {
        let Place { service, route, backend } = &*self.place;
        let Some(service) = service else { return String::new() };
        // There was no backend to ask.
        let backend = backend.as_ref().filter(|_| !matches!(self.error, ProxyError::LoadShed));
        match (route, backend) {
            (Some(route), Some(backend)) => format!("logical service {service}: route {route}: backend {backend}: "),
            (Some(route), None) => format!("logical service {service}: route {route}: "),
            (None, _) => format!("logical service {service}: "),
        }
    }
}

impl From<ProxyError> for Failed {
    fn from(error: ProxyError) -> Self {
        Self { error, place: Box::default() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place(), self.error)
    }
}
