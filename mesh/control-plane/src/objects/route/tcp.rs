//! What TLSRoutes and TCPRoutes have of their own: rules of nothing but backends.

use std::convert::Infallible;

use super::{RouteBackend, Unusable, backends};
use crate::{
    Key,
    objects::{extras::Extras, wire::route as spec},
};

/// A rule for connections.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TcpRule {
    /// Empty means the parent itself.
    pub(crate) backends: Vec<RouteBackend<Infallible>>,
}

/// Reads a rule, of which everything can be told.
pub(super) fn rule(route: &Key, rule: &spec::RouteRule<spec::NoMatch>, _: &Extras) -> Result<TcpRule, Unusable> {
    Ok(TcpRule { backends: backends(route, &rule.backend_refs, |_, _| Vec::new()) })
}
