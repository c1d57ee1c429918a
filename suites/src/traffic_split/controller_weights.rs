//! The controller's own weights, under one override for the route and under one per Service.

use meshgate_fixtures::Weights;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::plan::{Backend, NAMESPACE, Plan};
use meshgate_harness::probe::Request;
use meshgate_harness::statistics::Sequential;
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};

use super::{AT_A_TIME, Answers, CONNECTIONS, SETTLES, measure, until_from, until_seen};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "traffic_split/weights-void",
        summary: "Under one override for the whole route the controller's weights are void: all goes to the override's Service",
        needs: &[Need::Serves, Need::Template("weighted"), Need::Weights(Weights::Void), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| weighted(plan, 50, 50),
        run: |context| Box::pin(weights_void(context)),
    },
    Case {
        id: "traffic_split/weights-honoured",
        summary: "The controller's weights of 70/30 count where each Service carries its own override",
        needs: &[Need::Serves, Need::Template("weighted"), Need::Weights(Weights::Honoured), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| weighted(plan, 70, 30),
        run: |context| Box::pin(weights_honoured(context)),
    },
];

fn weighted(plan: &mut Plan, one: u32, two: u32) {
    plan.service("one", Backend::A);
    plan.service("two", Backend::B);
    let two_full = plan.full("two");
    plan.route("main", "one")
        .template("weighted")
        .value("weight", one.to_string())
        .value("weight_b", two.to_string())
        .value("override_b", format!("{two_full}.{NAMESPACE}.svc.cluster.local:80"))
        .value("service_b", two_full)
        .unawaited();
}

async fn weights_void(context: Context) -> CaseResult {
    let request = context.get("main")?;
    until_from(&context, &request, Backend::A).await?;
    let marker = format!("/weights-{:016x}", rand::random::<u64>());
    let (_, other) = context
        .pods_of(Backend::B.name())
        .await?
        .into_iter()
        .next()
        .ok_or_else(|| check("the pods of the second Service").failure("one with an address", "none"))?;
    // The control: the controller means half of them for the other Service, as its access log says.
    let request = Request { path: marker.clone(), ..request };
    let half = Sequential { p: 0.5, off: 0.15 };
    let mut records = Vec::new();
    let answers = loop {
        records.extend(context.send_many(request.clone(), AT_A_TIME, CONNECTIONS).await);
        let answers = Answers::all_good("under 50/50 and one override", &records)?;
        answers.only(Backend::A)?;
        let meant = logged(&context, &marker, records.len()).await?.matches(&format!("{other}:")).count();
        if let Some(right) = half.judge(records.len() as u64, meant as u64) {
            let found = format!("{meant} of {}", records.len());
            check("the requests that the controller meant for the second Service, by its access log").that(
                right,
                half.describe(),
                found,
            )?;
            break answers;
        }
    };
    Ok(Outcome::Weakness {
        name: "weights-void",
        observed: format!(
            "the controller meant half of {} requests for its second Service, which got {}",
            answers.0.total,
            answers.of(Backend::B)
        ),
    })
}

/// What the controller's access log says of all of so many requests. It tells of a request some time after the answer.
async fn logged(context: &Context, marker: &str, requests: usize) -> Result<String, Failure> {
    let workload = &context.world.controller.workload;
    let whole = converge(SETTLES, || async {
        let log = context.world.access_log(workload).await.map_err(|error| format!("{error:#}"))?;
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(marker)).collect();
        if lines.len() >= requests { Ok(lines.join("\n")) } else { Err(lines.len().to_string()) }
    });
    whole.await.map_err(|seen| {
        check(format!("the requests {marker} in the access log of {workload}")).failure(format!("all {requests}"), seen)
    })
}

async fn weights_honoured(context: Context) -> CaseResult {
    let request = context.get("main")?;
    until_seen(&context, &request, Backend::B).await?;
    let share = Sequential { p: 0.7, off: 0.15 };
    measure(&context, "under the controller's 70/30", request, Backend::A, share).await?;
    Ok(Outcome::Pass)
}
