//! Routes that serve and are changed into the objects that make no sense: `bad` in a recipe says what becomes of them.

use meshgate_fixtures::Became;
use meshgate_harness::case::{Case, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, Plan, Route};
use meshgate_harness::probe::{Record, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Failure, Outcome, check};
use serde_json::Value;

use super::bad_objects::{
    GOOD, LATE, OTHER, Suspect, clear, is_served_by_nobody, lines_with, named, served_by, suspects, taken_or_refused,
    told, told_again,
};
use super::{CONNECTIONS, SETTLES, is_same, own_objects};

/// The cases of this file.
pub const CASES: &[Case] = &[Case {
    id: "resilience/became-bad",
    summary: "A route that is changed into an object that makes no sense goes on as it was, leads where it says now, or serves no more, as the recipe says, which is told, and once it is mended it leads where it says then",
    needs: &[Need::Serves, Need::BadObjects, Need::OncePerRecipe],
    claims: &[],
    // It changes the configuration more than once.
    stage: Stage::Alone,
    plan: two_routes,
    run: |context| Box::pin(became_bad(context)),
}];

/// What belongs to one of the two Services is there from the beginning, and stays.
fn two_routes(plan: &mut Plan) {
    plan.serve(GOOD, Backend::A);
    plan.serve(OTHER, Backend::B);
}

/// A route that leads to [`OTHER`] until it is changed into one of the recipe's bad objects, which leads to [`GOOD`]: who answers shows
/// whether the change was taken.
struct Turning<'a> {
    before: Vec<Value>,
    suspect: Suspect<'a>,
    /// It leads where nobody takes it for what was there before.
    mended: Vec<Value>,
    mends_to: Backend,
}

impl Turning<'_> {
    fn request(&self, context: &Context) -> Request {
        context.world.request_to(&self.suspect.route, &context.world.ingress)
    }

    /// Waits until a backend answers.
    async fn serves(&self, context: &Context, backend: Backend, when: &str) -> Result<(), Failure> {
        let what = self.leads_to(backend, when);
        context.until(SETTLES, &what, self.request(context), |record| served_by(record, backend)).await
    }

    fn leads_to(&self, backend: Backend, when: &str) -> String {
        format!("the host of {} to lead to {} {when}", named(&self.suspect), backend.name())
    }
}

async fn became_bad(context: Context) -> CaseResult {
    let mut plan = (*context.plan).clone();
    let late = plan.route(LATE, OTHER).clone();
    let late_objects = own_objects(&context, &late)?;
    let turning = turning(&context, &mut plan)?;
    let judged = judge(&context, &turning, &late, &late_objects).await;
    let made = turning.iter().flat_map(|turn| [&turn.before, &turn.suspect.objects, &turn.mended]);
    let made: Vec<&Vec<Value>> = made.chain([&late_objects]).collect();
    let cleared = clear(&context, &made, &late).await;
    judged?;
    cleared?;
    Ok(Outcome::Pass)
}

/// The bad objects that take the place of a route's; no route can be changed into the others.
fn turning<'a>(context: &'a Context, plan: &mut Plan) -> Result<Vec<Turning<'a>>, Failure> {
    let (good, other) = (plan.full(GOOD), plan.full(OTHER));
    let mut turning = Vec::new();
    for mut suspect in suspects(context, plan, |_| true)? {
        let before = own_objects(context, &in_order(&suspect.route, &other))?;
        if !take_the_place(&suspect.objects, &before) {
            continue;
        }
        let (leads_to, mends_to) = match suspect.bad.becomes() {
            Became::Serves => (&other, Backend::B),
            Became::AsBefore | Became::Stops => (&good, Backend::A),
        };
        let mended = own_objects(context, &in_order(&suspect.route, leads_to))?;
        suspect.objects = own_objects(context, &suspect.route)?;
        turning.push(Turning { before, suspect, mended, mends_to });
    }
    Ok(turning)
}

/// A bad route without what is wrong with it, to a Service by its whole name.
fn in_order(bad: &Route, service: &str) -> Route {
    let mut route = bad.clone();
    service.clone_into(&mut route.service);
    route.template("route").clone()
}

/// Whether one of these objects is what one of a route's becomes.
fn take_the_place(bad: &[Value], before: &[Value]) -> bool {
    before.iter().any(|object| bad.iter().any(|other| is_same(object, other)))
}

async fn judge(
    context: &Context,
    turning: &[Turning<'_>],
    late: &Route,
    late_objects: &[Value],
) -> Result<(), Failure> {
    let (freezing, others): (Vec<&Turning<'_>>, Vec<&Turning<'_>>) =
        turning.iter().partition(|turn| turn.suspect.bad.freezes);
    begin(context, &others).await?;
    for turn in &others {
        taken_or_refused(context, &turn.suspect).await?;
    }
    context.apply_meanwhile(late_objects).await?;
    let request = context.world.request_to(late, &context.world.ingress);
    let answers = |record: &Record| served_by(record, Backend::B);
    context.until_all(SETTLES, "a route that came after the changes to be served", request, answers).await?;
    // That nothing is told of the others `resilience/bad-objects` has seen.
    let speaking = others.iter().map(|turn| &turn.suspect).filter(|suspect| suspect.bad.told.is_some());
    let speaking: Vec<&Suspect<'_>> = speaking.collect();
    told(context, &speaking).await?;
    for turn in &others {
        became(context, turn).await?;
    }
    mend(context, &others).await?;
    // One at a time: that a change was seen is told by nothing else while there is one, and it does not say which.
    for turn in freezing {
        let told = turn.suspect.bad.told.as_deref().unwrap_or_default();
        begin(context, &[turn]).await?;
        let before = lines_with(context, told).await?;
        taken_or_refused(context, &turn.suspect).await?;
        told_again(context, told, before).await?;
        became(context, turn).await?;
        mend(context, &[turn]).await?;
    }
    Ok(())
}

/// Makes the routes as they are in order, and waits until they serve.
async fn begin(context: &Context, turning: &[&Turning<'_>]) -> Result<(), Failure> {
    for turn in turning {
        context.apply_meanwhile(&turn.before).await?;
    }
    for turn in turning {
        // Every worker of the controller: one that has yet to hear of it does not go on as before.
        let what = turn.leads_to(Backend::B, "before it is changed");
        context.until_all(SETTLES, &what, turn.request(context), |record| served_by(record, Backend::B)).await?;
    }
    Ok(())
}

/// Sees what has become of a route whose change the controller is known to have seen.
async fn became(context: &Context, turn: &Turning<'_>) -> Result<(), Failure> {
    match turn.suspect.bad.becomes() {
        Became::Serves => turn.serves(context, Backend::A, "all the same").await,
        Became::Stops => {
            let what = format!("the host of {} to lead nowhere any more", named(&turn.suspect));
            context.until(SETTLES, &what, turn.request(context), is_served_by_nobody).await
        }
        // Nothing to wait for: it was so before. That it can change shows when it is mended.
        Became::AsBefore => {
            let records = context.send_many(turn.request(context), 20, CONNECTIONS).await;
            let strange = records.iter().find(|record| !served_by(record, Backend::B));
            check(format!("the answers on the host of {}, which served before", named(&turn.suspect))).that(
                strange.is_none(),
                format!("all as before, 200 from {}", Backend::B.name()),
                strange.map_or_else(String::new, outcome),
            )
        }
    }
}

/// Changes the routes once more, into such as are in order, and waits until they lead where they say.
async fn mend(context: &Context, turning: &[&Turning<'_>]) -> Result<(), Failure> {
    for turn in turning {
        context.apply_meanwhile(&turn.mended).await?;
        let is_mended = |object: &Value| turn.mended.iter().any(|other| is_same(object, other));
        let rest = turn.suspect.objects.iter().filter(|object| !is_mended(object));
        let rest: Vec<Value> = rest.cloned().collect();
        context.world.kubernetes.delete_all(&rest).await?;
    }
    for turn in turning {
        turn.serves(context, turn.mends_to, "once it is mended").await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use meshgate_fixtures::{Fixtures, Recipe};

    use super::*;

    /// Whether a route of the recipe can be changed into what this template makes.
    fn can_become(recipe: &Recipe, template: &str) -> bool {
        let mut plan = Plan::new("a-case");
        two_routes(&mut plan);
        let route = plan.route("turning", GOOD).template(template).value("other_service", "other").clone();
        let before = in_order(&route, &plan.full(OTHER));
        take_the_place(&route.objects(recipe).unwrap(), &before.objects(recipe).unwrap())
    }

    #[test]
    fn of_each_controller_a_route_can_be_changed_into_a_bad_object_and_not_into_every_one() {
        let fixtures = Fixtures::built_in().unwrap();
        let mut apart = 0;
        for controller in fixtures.controllers.values() {
            let recipes = controller.recipes.values().filter(|recipe| !recipe.bad.is_empty());
            let all: Vec<bool> = recipes
                .flat_map(|recipe| recipe.bad.keys().map(|template| can_become(recipe, template)).collect::<Vec<_>>())
                .collect();
            assert!(all.contains(&true), "{}", controller.name);
            apart += all.iter().filter(|can| !**can).count();
        }
        assert!(apart > 0, "the control: objects of another kind take no route's place");
    }

    #[test]
    fn a_route_in_order_differs_from_the_bad_one_in_its_form_and_service() {
        let mut plan = Plan::new("a-case");
        two_routes(&mut plan);
        let bad = plan.route("turning", GOOD).template("bad-port").clone();
        let route = in_order(&bad, &plan.full(OTHER));
        assert_eq!((route.template.as_str(), route.service.as_str()), ("route", "a-case-other"));
        assert_eq!((&route.name, &route.host), (&bad.name, &bad.host));
        assert_eq!((bad.template.as_str(), bad.service.as_str()), ("bad-port", "a-case-good"));
    }
}
