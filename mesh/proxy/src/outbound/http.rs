//! One request on its way out.

use std::{net::SocketAddr, sync::Arc};

use ::http::{
    HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri, Version,
    header::HOST,
    uri::{Authority, Scheme},
};
use tokio::{net::lookup_host, time};

use super::{
    Outbound, Routing,
    attempts::{self, Again},
    destination::Destination,
    plan::{Backend, HttpPlan, PolicyBackend},
};
use crate::{
    NameAddr, Target,
    classify::{Classify, grpc_code},
    dialect::{Choice, Dialled, OVERRIDE, choose},
    http::{
        BoxedRequest, CANONICAL, Failed, Overdue, PROXY_CONNECTION, ProxyError, RequestBody, ResponseBody,
        TimedAttempt, UNSENT, Upgrade, check_head, remove_each, strip_hop_by_hop,
    },
    metrics::Direction,
    policy::{Chosen, Routes, Terms},
    profile::{Route, RouteScopes, ServiceProfile},
    retry::MAX_BODY,
    split::Split,
    within::{unless, within},
};

const PROXY_ERROR: HeaderName = HeaderName::from_static("l5d-proxy-error");

impl Outbound {
    pub(super) async fn respond(
        &self,
        routing: Routing,
        mut request: BoxedRequest,
    ) -> Result<Response<ResponseBody>, Failed> {
        check_head(&request)?;
        self.guard.check(request.headers())?;
        let destination = self.choose(routing, &mut request).await?;

        // `Connection` may name the override, so it is looked at after that has been read.
        let upgrade = Upgrade::of(&mut request)?;
        let version = request.version();
        if version == Version::HTTP_2 {
            complete_uri(&mut request)?;
        } else {
            strip_hop_by_hop(request.headers_mut(), upgrade.keeps_headers());
        }
        self.guard.mark(request.headers_mut());

        let plan = time::timeout(self.discovery_timeout, destination.plan()).await.map_err(|_| {
            ProxyError::DiscoveryTimedOut { target: destination.target().clone(), timeout: self.discovery_timeout }
        })?;
        let mut response = match &plan.http {
            HttpPlan::Profile(profile, backends) => self.through_profile(profile, backends, request).await?,
            HttpPlan::Policy(routes) => self.through_policy(destination.target(), routes, request).await?,
            HttpPlan::Backend(backend) => backend
                .send(request, None)
                .await
                .map_err(|error| Failed::from(error).for_service(destination.target()))?,
            HttpPlan::NoSuchService => return Err(ProxyError::NoSuchService(destination.target().clone()).into()),
            HttpPlan::Invalid(problem) => return Err(ProxyError::InvalidPolicy(problem).into()),
            HttpPlan::NoPolicy => return Err(ProxyError::NoPolicy(destination.target().clone()).into()),
            HttpPlan::NotHttp => return Err(ProxyError::NotHttp(destination.target().clone()).into()),
            HttpPlan::Failed(message) => {
                let target = destination.target().clone();
                return Err(ProxyError::Discovery { target, message: message.clone() }.into());
            }
        };

        if version != Version::HTTP_2 {
            let upgraded = upgrade.complete(&mut response, &self.drain);
            strip_hop_by_hop(response.headers_mut(), upgraded);
            *response.version_mut() = Version::HTTP_11;
        }
        // Between proxies only. But why a loop was cut is for whoever began it.
        let explained = response.status() == StatusCode::LOOP_DETECTED;
        let between = [PROXY_CONNECTION, UNSENT, PROXY_ERROR];
        remove_each(response.headers_mut(), &between[..if explained { 2 } else { 3 }]);
        Ok(response)
    }

    /// The request's destination. In ingress mode the override is removed, whatever it says.
    async fn choose(
        &self,
        routing: Routing,
        request: &mut Request<RequestBody>,
    ) -> Result<Arc<Destination>, ProxyError> {
        let (original, first) = match routing {
            Routing::Connection(destination) => return Ok(destination),
            Routing::Request(original, first) => (original, first),
        };
        let Some(ingress) = &self.ingress else { return Ok(self.destination(&Target::Address(original))) };
        let choice = choose(ingress.dialect, request.uri(), request.headers(), &ingress.suffixes);
        request.headers_mut().remove(OVERRIDE);
        let target = match choice {
            Choice::Service(name) => {
                let name = Target::Name(name);
                first.map_or(name.clone(), |first| first.get_or_init(|| name).clone())
            }
            Choice::Original if ingress.dialect.requests() == Dialled::Forwarded => {
                let forward = || Destination::forward(original, &self.parts);
                return Ok(self.destinations.get_or_make(&Target::Address(original), forward));
            }
            Choice::Original => Target::Address(original),
            Choice::Address(address) => Target::Address(address),
            Choice::Elsewhere(name) => Target::Address(resolve(&name).await?),
            Choice::Invalid(invalid) => return Err(invalid.into()),
        };
        Ok(self.destination(&target))
    }

    async fn through_policy(
        &self,
        target: &Target,
        routes: &Routes<PolicyBackend>,
        mut request: BoxedRequest,
    ) -> Result<Response<ResponseBody>, Failed> {
        let chosen = routes.choose(&request).ok_or_else(|| ProxyError::NoRoute(target.clone()))?;
        let mut observation = chosen.scope().begin(None);
        // Before the filters: it is the client that may say something, not the route.
        let own = chosen.rule().terms_of(request.headers_mut());
        let terms = own.as_deref().unwrap_or(chosen.rule().terms());
        let result = match chosen.filter(&mut request) {
            Ok(()) => within(terms.timeout, self.policy_attempts(target, &chosen, terms, request))
                .await
                .unwrap_or_else(|limit| Err(ProxyError::Overdue(Overdue::Request(limit)).into())),
            Err(error) => Err(error.into()),
        };
        match result {
            Ok(mut response) => {
                observation.head(response.status(), response.headers());
                chosen.rule().filter_response(&mut response);
                if let Some(limit) = terms.timeout {
                    let end = observation.started() + limit;
                    response.body_mut().end_by(end.into(), Overdue::Request(limit));
                }
                response.body_mut().observe(observation);
                Ok(response)
            }
            Err(failed) => {
                observation.failed(&failed.error);
                Err(failed.on_route(chosen.rule().name()).for_service(target))
            }
        }
    }

    /// Sends a request, and again while its terms allow it and it might go better.
    async fn policy_attempts(
        &self,
        target: &Target,
        chosen: &Chosen<'_, PolicyBackend>,
        terms: &Terms,
        request: BoxedRequest,
    ) -> Result<Response<ResponseBody>, Failed> {
        let (mut request, again) = attempts::begin(request, terms.retry.as_ref().map(|retry| retry.max_body));
        let mut retries = 0;
        loop {
            let result = self.policy_attempt(target, chosen, terms, retries, request).await;
            let Some(retry) = &terms.retry else { return result };
            // A rule counts whatever may be sent again.
            let Some(counters) = chosen.retry_counters() else { return result };
            if !retry.applies(result.as_ref().map_err(|failed| &failed.error)) {
                if retries > 0 {
                    counters.successes.increment();
                }
                return result;
            }
            if !retry.allows(retries) {
                counters.limit_exceeded.increment();
                return result;
            }
            let Some(next) = again.as_ref().and_then(Again::request) else {
                counters.overflow.increment();
                return result;
            };
            request = next;
            counters.requests.increment();
            if let Ok(response) = result {
                response.into_body().give_way();
            }
            time::sleep(retry.backoff(retries)).await;
            retries += 1;
        }
    }

    /// The attempt after so many.
    async fn policy_attempt(
        &self,
        target: &Target,
        chosen: &Chosen<'_, PolicyBackend>,
        terms: &Terms,
        retries: u32,
        mut request: BoxedRequest,
    ) -> Result<Response<ResponseBody>, Failed> {
        let backends = chosen.rule().backends();
        let choose = || backends.choose(&mut rand::rng(), |leg| leg.backend.is_available());
        let mut leg = choose();
        // A leg that nothing is known of yet may turn out to have no endpoints where another has. Boxed, for that is rare.
        while backends.is_choice()
            && let Some(unknown) = leg.and_then(|leg| leg.backend.unknown())
            && Box::pin(unknown.becomes_known()).await
        {
            leg = choose();
        }
        let leg = leg.ok_or_else(|| ProxyError::NoRoute(target.clone()))?;
        leg.filter(&mut request)?;
        let sent = request.body_mut().count(chosen.scope().request_frames());
        let timed = terms.limits(retries).begin(request.body_mut());
        let mut observation = leg.backend.scope.begin(sent);
        let result = unless(timed.as_ref().map(TimedAttempt::without_head), leg.backend.send(request))
            .await
            .unwrap_or_else(|overdue| Err(ProxyError::Overdue(overdue)));
        match result {
            Ok(mut response) => {
                if let Some(timed) = &timed {
                    timed.limit(response.body_mut());
                }
                if let Some(retry) = &terms.retry {
                    retry.look(&mut response).await;
                }
                observation.head(response.status(), response.headers());
                leg.filter_response(&mut response);
                response.body_mut().observe(observation);
                Ok(response)
            }
            Err(error) => {
                observation.failed(&error);
                Err(Failed::from(error).with_backend(&leg.backend.name))
            }
        }
    }

    async fn through_profile(
        &self,
        profile: &ServiceProfile,
        backends: &Split<Backend>,
        mut request: BoxedRequest,
    ) -> Result<Response<ResponseBody>, Failed> {
        let route = Arc::clone(profile.route(request.method(), request.uri().path()));
        let scopes = route.scopes(&self.metrics, Direction::Outbound);
        let classify = Classify::new(request.headers(), Some(Arc::clone(route.classes())));
        let mut observation = scopes.route.observe(classify.clone());
        observation.sent();
        request.headers_mut().insert(CANONICAL, profile.canonical().clone());

        let result = within(route.timeout(), self.attempts(profile, &route, &classify, backends, request))
            .await
            .unwrap_or_else(|limit| Err(ProxyError::ResponseTimeout(limit)));
        match result {
            Ok(mut response) => {
                observation.head(response.status(), response.headers());
                response.body_mut().observe(observation);
                Ok(response)
            }
            Err(error) => {
                if let ProxyError::Connect(_) = &error {
                    // Linkerd answers these below the route, which then sees a response.
                    observation.head(error.status(), &HeaderMap::new());
                    observation.end(None);
                } else {
                    observation.fail(error.class());
                }
                Err(Failed::from(error).for_service(profile.name()))
            }
        }
    }

    /// Sends a request, and again while its route allows it and its responses are failures.
    async fn attempts(
        &self,
        profile: &ServiceProfile,
        route: &Route,
        classify: &Classify,
        backends: &Split<Backend>,
        request: BoxedRequest,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let scopes = route.scopes(&self.metrics, Direction::Outbound);
        let budget = profile.budget(route);
        let (mut request, again) = attempts::begin(request, budget.map(|_| MAX_BODY));
        let retry = budget.zip(again);
        if let Some((budget, _)) = &retry {
            budget.deposit();
        }
        loop {
            let mut response = self.attempt(route, classify, scopes, backends, request).await?;
            let Some((budget, again)) = &retry else { return Ok(response) };
            if !fails(classify, &mut response).await {
                return Ok(response);
            }
            let Some(next) = again.request() else { return Ok(response) };
            if !budget.withdraw() {
                scopes.no_budget.increment();
                return Ok(response);
            }
            request = next;
            scopes.retried.increment();
            response.into_body().give_way();
        }
    }

    async fn attempt(
        &self,
        route: &Route,
        classify: &Classify,
        scopes: &RouteScopes,
        backends: &Split<Backend>,
        request: BoxedRequest,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let mut observation = scopes.actual.observe(classify.clone());
        observation.sent();
        let backend = backends.choose(&mut rand::rng(), Backend::is_available);
        // A profile has at least one leg.
        let backend = backend.ok_or(ProxyError::Malformed("its destination has no backends"))?;
        match backend.send(request, Some(route.classes())).await {
            Ok(mut response) => {
                observation.head(response.status(), response.headers());
                response.body_mut().observe(observation);
                Ok(response)
            }
            Err(error) => {
                observation.fail(error.class());
                Err(error)
            }
        }
    }
}

/// Whether a response is a failure, as soon as that is known: as with Linkerd's proxy, a code in trailers counts if no message or one that
/// is there at once comes before.
async fn fails(classify: &Classify, response: &mut Response<ResponseBody>) -> bool {
    let (status, code) = (response.status(), grpc_code(response.headers()));
    if classify.needs_trailers(status, code) {
        response.body_mut().peek().await;
    }
    !classify.class(status, code, response.body().trailers().and_then(grpc_code)).success
}

async fn resolve(name: &NameAddr) -> Result<SocketAddr, ProxyError> {
    let unresolvable = |message: String| ProxyError::Unresolvable { name: name.clone(), message };
    let mut addresses =
        lookup_host((name.name(), name.port())).await.map_err(|error| unresolvable(error.to_string()))?;
    addresses.next().ok_or_else(|| unresolvable("DNS has none".to_owned()))
}

/// HTTP/2 requests carry scheme and authority; a client may have sent the authority as `Host` only.
fn complete_uri<B>(request: &mut Request<B>) -> Result<(), ProxyError> {
    if request.uri().authority().is_some() && request.uri().scheme().is_some() || request.method() == Method::CONNECT {
        return Ok(());
    }
    let host = request.headers().get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = request.uri().clone().into_parts();
    parts.authority = parts.authority.or(host);
    if parts.authority.is_none() {
        return Err(ProxyError::Malformed("an HTTP/2 request needs :authority or Host"));
    }
    parts.scheme = parts.scheme.or(Some(Scheme::HTTP));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| ProxyError::Malformed("its target is not a URI"))?;
    Ok(())
}
