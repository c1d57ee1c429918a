//! A certificate that cannot be used, beside those that can.

use meshgate_fixtures::FROZEN_BY_CERTIFICATE;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, Plan, Route};
use meshgate_harness::probe::Record;
use meshgate_harness::verdict::{CaseResult, Failure, Outcome};
use serde_json::Value;

use super::bad_objects::{clear, served_by};
use super::{CONNECTIONS, SETTLES, all_good, own_objects};
use crate::tls::{COMMON_NAME, certificate, secret, terminate};

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "resilience/bad-certificate",
    summary: "While a certificate cannot be used, other routes behind TLS serve, and those that come later as well or, where the recipe says so, once it is mended, when its own route serves with it",
    needs: &[Need::Serves, Need::Template(TLS), Need::BadObjects, Need::OncePerRecipe],
    claims: &[],
    // It may keep the controller from changes that others wait for.
    stage: Stage::Alone,
    plan: |plan| {
        plan.service(MAIN, Backend::A);
        terminate(plan, MAIN, MAIN);
        plan.serve(OTHER, Backend::B);
    },
    run: |context| Box::pin(bad_certificate(context)),
}];

/// The route behind TLS that is there from the beginning, and its Service.
const MAIN: &str = "main";

/// A route without TLS, and its Service, to which those lead that come later.
const OTHER: &str = "other";

/// The template of routes with a certificate.
const TLS: &str = "tls";

/// What is in the place of a certificate and its key.
const GARBAGE: &str = "no-certificate";

/// The routes that the case makes, each in its turn.
struct Made {
    /// Behind TLS, with the certificate that cannot be used.
    sealed: Route,
    /// Behind TLS, with one that can.
    after: Route,
    /// Without TLS.
    late: Route,
}

async fn bad_certificate(context: Context) -> CaseResult {
    let mut plan = (*context.plan).clone();
    let made = Made {
        sealed: behind_tls(&mut plan, "sealed", MAIN),
        after: behind_tls(&mut plan, "after", OTHER),
        late: plan.route("late", OTHER).clone(),
    };
    let mut objects = Vec::new();
    for route in [&made.sealed, &made.after, &made.late] {
        objects.push(own_objects(&context, route)?);
    }
    let judged = judge(&context, &made).await;
    // The Secrets go later: a route without one would be wrong anew.
    let cleared = clear(&context, &objects.iter().collect::<Vec<_>>(), &made.late).await;
    let outcome = judged?;
    cleared?;
    Ok(outcome)
}

async fn judge(context: &Context, made: &Made) -> CaseResult {
    let Made { sealed, after, late } = made;
    for (route, secret) in [(sealed, secret(&sealed.name, GARBAGE, GARBAGE)), (after, proper(after)?)] {
        let mut objects = own_objects(context, route)?;
        objects.insert(0, secret);
        context.apply_meanwhile(&objects).await?;
    }
    context.apply_meanwhile(&own_objects(context, late)?).await?;
    let request = |route: &Route| context.world.request_to(route, &context.world.ingress);
    let what = "a route without TLS that came after the certificate to be served";
    context.until_all(SETTLES, what, request(late), |record| served_by(record, Backend::B)).await?;
    let freezes = context.world.recipe.findings.contains_key(FROZEN_BY_CERTIFICATE);
    if freezes {
        // What came after it is served already. The control: once the certificate is mended, the same request is answered.
        let what = "no application to answer on a route behind TLS that came after a certificate that cannot be used";
        context.from_now_on(SETTLES, what, request(after), |record| record.service().is_none()).await?;
    } else {
        let what = "a route behind TLS that came after a certificate that cannot be used to be served";
        context.until_all(SETTLES, what, request(after), |record| is_behind_tls(record, Backend::B)).await?;
    }
    let records = context.send_many(context.get(MAIN)?, 20, CONNECTIONS).await;
    all_good("on a route behind TLS that was there before", &records)?;
    context.world.kubernetes.apply(&proper(sealed)?).await?;
    for (route, backend) in [(sealed, Backend::A), (after, Backend::B)] {
        let what = format!("the route {} to be served once the certificate is mended", route.name);
        context.until(SETTLES, &what, request(route), |record| is_behind_tls(record, backend)).await?;
    }
    if !freezes {
        return Ok(Outcome::Pass);
    }
    let observed = "no change of a route behind TLS is taken while the certificate of one of them cannot be used";
    Ok(Outcome::Weakness { name: FROZEN_BY_CERTIFICATE, observed: observed.to_owned() })
}

/// A route with a certificate of its own, in a Secret of its name.
fn behind_tls(plan: &mut Plan, name: &str, service: &str) -> Route {
    let secret = plan.full(name);
    plan.route(name, service).template(TLS).value("secret", secret).unawaited().clone()
}

/// The Secret of such a route, with a certificate for its host.
fn proper(route: &Route) -> Result<Value, Failure> {
    let (certificate, key) = certificate(&route.host).map_err(anyhow::Error::from)?;
    Ok(secret(&route.name, &certificate, &key))
}

/// Whether a backend answered, behind a certificate that the controller was given and not one that it has of itself.
fn is_behind_tls(record: &Record, backend: Backend) -> bool {
    let shown = record.tls.as_ref().and_then(|peer| peer.common_name.as_deref());
    served_by(record, backend) && shown == Some(COMMON_NAME)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_route_names_the_secret_that_is_made_for_it() {
        let mut plan = Plan::new("a-case");
        plan.service(MAIN, Backend::A);
        let route = behind_tls(&mut plan, "sealed", MAIN);
        let garbage = secret(&route.name, GARBAGE, GARBAGE);
        assert_eq!((&garbage["metadata"]["name"], route.awaits.as_ref()), (&json!("a-case-sealed"), None));
        let proper = proper(&route).unwrap();
        assert_eq!(proper["metadata"], garbage["metadata"]);
        let certificate = proper["stringData"]["tls.crt"].as_str().unwrap();
        assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"), "{certificate}");
    }
}
