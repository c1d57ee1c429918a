//! emojivoto through the ingress: a person who votes, and the vote-bot.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams};
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::convergence::converge;
use meshgate_harness::plan::{NAMESPACE, Plan};
use meshgate_harness::probe::{Request, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// How long routes and pods may take.
const SETTLES: Duration = Duration::from_secs(20);

/// Votes that are cast by hand.
const VOTES: u64 = 5;

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "routing/emojivoto-votes",
        summary: "Listing, voting and the leaderboard work through the ingress, and the doughnut fails as it should",
        needs: &[Need::Serves, Need::App("emojivoto"), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Shared,
        plan: |plan| {
            plan.app("emojivoto");
            plan.route_to("web", "emojivoto", "web-svc");
        },
        run: |context| Box::pin(votes(context)),
    },
    Case {
        id: "routing/vote-bot",
        summary: "A meshed vote-bot votes through the ingress by its Service and HOST_OVERRIDE, and not without the latter",
        needs: &[Need::Serves, Need::App("emojivoto"), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| {
            plan.app("emojivoto");
            plan.route_to("web", "emojivoto", "web-svc");
            bot(plan, "bot");
            bot(plan, "lost");
        },
        run: |context| Box::pin(vote_bot(context)),
    },
    Case {
        id: "routing/printed-vote-bot",
        summary: "Through the manifests as printed the vote-bot votes with HOST_OVERRIDE, and not without it, and nobody gets what they do not name",
        needs: &[Need::ManifestsServe, Need::App("emojivoto"), Need::OncePerRecipe],
        claims: &[],
        stage: Stage::Waiting,
        plan: |plan| {
            plan.app("emojivoto");
            bot(plan, "bot");
            bot(plan, "lost");
        },
        run: |context| Box::pin(printed_vote_bot(context)),
    },
];

/// The page's HOST_OVERRIDE.
const WEB: &str = "web-svc.emojivoto";

#[derive(Deserialize)]
struct Listed {
    shortcode: String,
}

#[derive(Deserialize)]
struct Standing {
    shortcode: String,
    votes: String,
}

/// A vote-bot that sleeps until the case, which alone knows where the ingress is, wakes it.
fn bot(plan: &mut Plan, name: &str) {
    let full = plan.full(name);
    plan.workloads.push(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": full, "namespace": NAMESPACE},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": full}},
            "template": {
                "metadata": {"labels": {"app": full}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                    "name": "vote-bot", "image": meshgate_clusters::IMAGE, "args": ["app", "vote-bot"],
                }]},
            },
        },
    }));
}

/// A request for a path of emojivoto; a 200 is a JSON answer.
async fn get<T: DeserializeOwned>(context: &Context, path: &str) -> Result<T, Failure> {
    let record = context.send(Request { path: path.into(), ..context.get("web")? }).await;
    check(format!("the status of {path}")).that(record.is(200), "200", outcome(&record))?;
    serde_json::from_str(&record.body)
        .map_err(|error| check(format!("the answer of {path}")).failure("JSON of emojivoto", error.to_string()))
}

/// The standings by shortcode.
async fn leaderboard(context: &Context) -> Result<BTreeMap<String, u64>, Failure> {
    let standings: Vec<Standing> = get(context, "/api/leaderboard").await?;
    standings
        .into_iter()
        .map(|standing| {
            let votes = standing.votes.parse();
            let votes = votes.map_err(|_| check("votes on the leaderboard").failure("a number", standing.votes))?;
            Ok((standing.shortcode, votes))
        })
        .collect()
}

async fn open(context: &Context) -> Result<(), Failure> {
    let list = Request { path: "/api/list".into(), ..context.get("web")? };
    context.until(SETTLES, "emojivoto behind the ingress", list, |record| record.is(200)).await
}

async fn votes(context: Context) -> CaseResult {
    const CHOICE: &str = ":joy:";
    const DOUGHNUT: &str = ":doughnut:";
    open(&context).await?;
    let listed: Vec<Listed> = get(&context, "/api/list").await?;
    check("the emoji of the list").equal(listed.len(), 99)?;
    check("the choice among them").that(listed.iter().any(|emoji| emoji.shortcode == CHOICE), "there", "not there")?;

    let of = |board: &BTreeMap<String, u64>, choice: &str| board.get(choice).copied().unwrap_or_default();
    let before = leaderboard(&context).await?;
    let vote =
        |choice: &str| Ok::<_, Failure>(Request { path: format!("/api/vote?choice={choice}"), ..context.get("web")? });
    for _ in 0..VOTES {
        let record = context.send(vote(CHOICE)?).await;
        check("a vote").equal(record.outcome(), "200")?;
    }
    let record = context.send(vote(DOUGHNUT)?).await;
    check("a vote for the doughnut").equal(record.status, Some(500))?;
    check("its reason").that(
        record.body.contains("rpc error"),
        "the error of the voting service",
        record.body.as_str(),
    )?;
    let record = context.send(vote(":nothing:")?).await;
    check("a vote for what is not there").equal(record.status, Some(400))?;

    // A vote-bot may be at work as well; nobody takes votes away.
    let after = leaderboard(&context).await?;
    let rise = of(&after, CHOICE).saturating_sub(of(&before, CHOICE));
    check(format!("the rise of {CHOICE}")).that(rise >= VOTES, format!("at least {VOTES}"), rise.to_string())?;
    check("votes for the doughnut that count").equal(of(&after, DOUGHNUT), 0)?;
    Ok(Outcome::Pass)
}

async fn vote_bot(context: Context) -> CaseResult {
    open(&context).await?;
    let judged = watch(&context).await;
    asleep(&context).await?;
    judged.map(|()| Outcome::Pass)
}

async fn asleep(context: &Context) -> Result<(), Failure> {
    for name in ["bot", "lost"] {
        patch(context, name, json!({"spec": {"replicas": 0}})).await?;
    }
    Ok(())
}

async fn printed_vote_bot(context: Context) -> CaseResult {
    let target = context.world.ingress.at(context.world.controller.ports.http).to_string();
    let get = |path: &str| Request::get(&target, path).host(WEB);
    context.until(SETTLES, "emojivoto behind the ingress", get("/api/list"), |record| record.is(200)).await?;
    let record = context.send(get("/")).await;
    check("a path that the manifests do not name").that(record.is(404), "404", outcome(&record))?;
    let judged = watch_printed(&context).await;
    asleep(&context).await?;
    judged.map(|()| Outcome::Pass)
}

async fn watch_printed(context: &Context) -> Result<(), Failure> {
    wake(context, "bot", Some(WEB)).await?;
    until_logged(context, "bot", &Line::Counted, 5).await?;
    // The control: without HOST_OVERRIDE the Host is the controller's own name, which names no Service of the application.
    wake(context, "lost", None).await?;
    until_logged(context, "lost", &Line::Nothing, 3).await?;
    let counted = logged(context, "lost", &Line::Counted).await?;
    check("votes of the bot without HOST_OVERRIDE").equal(counted, 0)
}

async fn watch(context: &Context) -> Result<(), Failure> {
    let host = context.route("web")?.host.clone();
    wake(context, "bot", Some(&host)).await?;
    until_logged(context, "bot", &Line::Counted, 1).await?;

    // A vote that was under way when the standings were read may be in them and in the log only later, and so may one before it be whose line is on
    // its way to the log. After two more lines those are there.
    let before: u64 = leaderboard(context).await?.values().sum();
    let told_before = logged(context, "bot", &Line::Counted).await?;
    let told_before = until_logged(context, "bot", &Line::Counted, told_before + 2).await?;
    let told = until_logged(context, "bot", &Line::Counted, told_before + 5).await? - told_before;
    let rise = leaderboard(context).await?.values().sum::<u64>().saturating_sub(before);
    let least = told as u64 - 1;
    check("the rise of the standings").that(rise >= least, format!("at least {least}"), rise.to_string())?;

    // The control: without HOST_OVERRIDE the controller does not know the host, and the bot gets nothing to vote for.
    wake(context, "lost", None).await?;
    until_logged(context, "lost", &Line::Refused, 3).await?;
    let counted = logged(context, "lost", &Line::Counted).await?;
    check("votes of the bot without HOST_OVERRIDE").equal(counted, 0)
}

/// What the bot says in its log.
enum Line {
    /// A vote was answered 200.
    Counted,
    /// The list was answered 404.
    Refused,
    /// The list was answered with something that is no list.
    Nothing,
}

impl Line {
    fn is(&self, line: &str) -> bool {
        match self {
            Self::Counted => line.contains("voted") && line.contains("status=200"),
            Self::Refused => Self::Nothing.is(line) && line.contains("answer=404"),
            Self::Nothing => line.contains("gave no emoji"),
        }
    }
}

async fn wake(context: &Context, name: &str, host: Option<&str>) -> Result<(), Failure> {
    let controller = &context.world.controller;
    let ingress = format!("{}.{}:{}", controller.workload, controller.namespace, controller.ports.http);
    let mut env = vec![json!({"name": "WEB_HOST", "value": ingress}), json!({"name": "REQUEST_RATE", "value": "20"})];
    env.extend(host.map(|host| json!({"name": "HOST_OVERRIDE", "value": host})));
    let spec = json!({"replicas": 1, "template": {"spec": {"containers": [{"name": "vote-bot", "env": env}]}}});
    patch(context, name, json!({"spec": spec})).await
}

async fn patch(context: &Context, name: &str, patch: serde_json::Value) -> Result<(), Failure> {
    let api: Api<Deployment> = Api::namespaced(context.world.kubernetes.client(), NAMESPACE);
    let full = context.plan.full(name);
    let patched = api.patch(&full, &PatchParams::default(), &Patch::Strategic(patch)).await;
    patched.with_context(|| format!("cannot patch the Deployment {full}"))?;
    Ok(())
}

/// How many such lines are in the log of the bot's pod; none while there is no log.
async fn logged(context: &Context, name: &str, wanted: &Line) -> Result<usize, Failure> {
    let full = context.plan.full(name);
    let pods = context.pods_of(&full).await?;
    let [(pod, _)] = pods.as_slice() else {
        return Err(anyhow!("expected one pod of {full}, found {}", pods.len()).into());
    };
    let log = context.world.kubernetes.logs(NAMESPACE, pod, "vote-bot").await?;
    Ok(log.lines().filter(|line| wanted.is(line)).count())
}

async fn until_logged(context: &Context, name: &str, wanted: &Line, least: usize) -> Result<usize, Failure> {
    converge(SETTLES, || async {
        match logged(context, name, wanted).await {
            Ok(count) if count >= least => Ok(count),
            Ok(count) => Err(count.to_string()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
    .map_err(|seen| {
        check(format!("such lines in the log of {}", context.plan.full(name)))
            .failure(format!("at least {least}"), seen)
    })
}
