//! Weights are honoured.

use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::plan::{Backend, NAMESPACE, Plan};
use meshgate_harness::statistics::Sequential;
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::{Value, json};

use crate::counters::{ENDPOINTS, Proxy, ended};

use super::{SETTLES, measure, sample, until_from, until_seen};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "traffic_split/half",
        summary: "A TrafficSplit of 50/50 halves the traffic, and the controller's proxy counts each leg exactly",
        needs: &[Need::Serves, Need::Split, Need::OncePerRecipe],
        claims: &[Evidence::Confirms("ingress.split")],
        stage: Stage::Shared,
        plan: |plan| split(plan, 50, 50),
        run: |context| Box::pin(half(context)),
    },
    Case {
        id: "traffic_split/ninety-ten",
        summary: "A TrafficSplit of 90/10 sends a tenth to the second leg",
        needs: &[Need::Serves, Need::Split, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[Evidence::Confirms("ingress.split")],
        stage: Stage::Shared,
        plan: |plan| split(plan, 90, 10),
        run: |context| Box::pin(ninety_ten(context)),
    },
    Case {
        id: "traffic_split/zero-hundred",
        summary: "A leg of weight 0 gets nothing, although the route leads to a Service with the same pods",
        needs: &[Need::Serves, Need::Split, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[Evidence::Confirms("ingress.split")],
        stage: Stage::Shared,
        plan: |plan| split(plan, 0, 100),
        run: |context| Box::pin(zero_hundred(context)),
    },
    Case {
        id: "traffic_split/profile-dst-overrides",
        summary: "The dstOverrides of a ServiceProfile split the traffic 80/20",
        needs: &[Need::Serves, Need::Split, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[Evidence::Confirms("ingress.split")],
        stage: Stage::Shared,
        plan: |plan| {
            apex(plan);
            let overrides = overrides(plan, &[("one", "800m"), ("two", "200m")]);
            plan.profile("apex", json!({"dstOverrides": overrides}));
        },
        run: |context| Box::pin(profile_dst_overrides(context)),
    },
    Case {
        id: "traffic_split/profile-beats-split",
        summary: "Where a Service has both, the dstOverrides of its profile count and the TrafficSplit does not",
        needs: &[Need::Serves, Need::Split, Need::OncePerRecipe, Need::OncePerPromises],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            split(plan, 100, 0);
            let overrides = overrides(plan, &[("two", "1")]);
            plan.profile("apex", json!({"dstOverrides": overrides}));
        },
        run: |context| Box::pin(profile_beats_split(context)),
    },
];

/// The Services `apex` and `one` before [`Backend::A`], `two` before [`Backend::B`], and a route to the apex. Who answers on it
/// is the case's subject, so the cell does not wait for it.
pub(super) fn apex(plan: &mut Plan) {
    plan.service("apex", Backend::A);
    plan.service("one", Backend::A);
    plan.service("two", Backend::B);
    plan.route("apex", "apex").unawaited();
}

/// [`apex`], split between `one` and `two`.
pub(super) fn split(plan: &mut Plan, one: u32, two: u32) {
    apex(plan);
    plan.split("apex", &[("one", one), ("two", two)]);
}

fn overrides(plan: &Plan, legs: &[(&str, &str)]) -> Value {
    let leg = |(leg, weight): &(&str, &str)| json!({"authority": format!("{}.{NAMESPACE}.svc.cluster.local:80", plan.full(leg)), "weight": weight});
    legs.iter().map(leg).collect()
}

/// Requests that the proxy beside the controller sent to a Service of the case and saw answered with 200.
async fn counted(context: &Context, service: &str) -> Result<f64, Failure> {
    let service = context.plan.full(service);
    let labels = [("direction", "outbound"), ("dst_service", &*service), ("status_code", "200")];
    Proxy::Controller.count(context, "response_total", &labels).await
}

async fn half(context: Context) -> CaseResult {
    let request = context.get("apex")?;
    until_seen(&context, &request, Backend::B).await?;
    // None of those answers is to be counted later, and one that came before the split was known is none of these.
    for service in ["one", "two", "apex"].map(|service| context.plan.full(service)) {
        let labels = [("direction", "outbound"), ("dst_service", service.as_str())];
        ended(&context, Proxy::Controller, ENDPOINTS, &labels).await?;
    }
    let before = [counted(&context, "one").await?, counted(&context, "two").await?];
    let apex_before = counted(&context, "apex").await?;
    let half = Sequential { p: 0.5, off: 0.1 };
    let answers = measure(&context, "under 50/50", request, Backend::A, half).await?;

    // Both legs' streams have ended, as their answers are here: the counters are final up to the proxy's own last step.
    for ((leg, backend), before) in [("one", Backend::A), ("two", Backend::B)].into_iter().zip(before) {
        let expected = answers.of(backend) as f64;
        converge(SETTLES, || async {
            let found = counted(&context, leg).await.map_err(|error| error.to_string())? - before;
            if found == expected { Ok(()) } else { Err(found.to_string()) }
        })
        .await
        .map_err(|seen| {
            check(format!("the answers that the controller's proxy counts for the leg {leg}"))
                .failure(expected.to_string(), seen)
        })?;
    }
    check("requests to the apex's own endpoints").equal(counted(&context, "apex").await? - apex_before, 0.0)?;
    Ok(Outcome::Pass)
}

async fn ninety_ten(context: Context) -> CaseResult {
    let request = context.get("apex")?;
    until_seen(&context, &request, Backend::B).await?;
    measure(&context, "under 90/10", request, Backend::B, Sequential { p: 0.1, off: 0.08 }).await?;
    Ok(Outcome::Pass)
}

async fn zero_hundred(context: Context) -> CaseResult {
    let request = context.get("apex")?;
    until_from(&context, &request, Backend::B).await?;
    // A leg that got two percent would be missed with a probability of 0.2 %.
    sample(&context, "under 0/100", request, 300).await?.only(Backend::B)?;
    Ok(Outcome::Pass)
}

async fn profile_dst_overrides(context: Context) -> CaseResult {
    let request = context.get("apex")?;
    until_seen(&context, &request, Backend::B).await?;
    let fifth = Sequential { p: 0.2, off: 0.1 };
    measure(&context, "under dstOverrides of 80/20", request, Backend::B, fifth).await?;
    Ok(Outcome::Pass)
}

async fn profile_beats_split(context: Context) -> CaseResult {
    let request = context.get("apex")?;
    until_from(&context, &request, Backend::B).await?;
    sample(&context, "under a profile and a split", request, 200).await?.only(Backend::B)?;
    Ok(Outcome::Pass)
}
