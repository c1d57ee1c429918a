//! A case: one behaviour, as data first and code second.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;

use meshgate_clusters::{Ability, Feature};
use meshgate_fixtures::{Balances, ClientOverride, Mode, Promises, Recipe, Weights};

use crate::context::Context;
use crate::matrix::{Cell, Dialect, Mesh};
use crate::plan::Plan;
use crate::verdict::CaseResult;

/// What the body of a case returns.
pub type CaseFuture = Pin<Box<dyn Future<Output = CaseResult> + Send>>;

/// One behaviour that the suite judges.
#[derive(Clone, Copy)]
pub struct Case {
    /// `area/behaviour`, unique: `routing/host`.
    pub id: &'static str,
    /// One sentence that is true when the case passes.
    pub summary: &'static str,
    /// What a cell must have for the case to apply; the first that it lacks is the reason for `not-applicable`.
    pub needs: &'static [Need],
    /// The claims of the page that the case tests.
    pub claims: &'static [Evidence],
    /// Whether it may run beside others.
    pub stage: Stage,
    /// Declares what has to exist before the cell is ready.
    pub plan: fn(&mut Plan),
    /// The body.
    pub run: fn(Context) -> CaseFuture,
}

/// What a passing case says about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The claim holds.
    Confirms(&'static str),
    /// The claim does not hold.
    Refutes(&'static str),
    /// It holds under the documented dialect and not under the modern one.
    HoldsAsDocumented(&'static str),
}

impl Evidence {
    /// The claim's id.
    pub fn claim(self) -> &'static str {
        match self {
            Self::Confirms(id) | Self::Refutes(id) | Self::HoldsAsDocumented(id) => id,
        }
    }

    /// Whether a pass in this cell speaks for the claim.
    pub fn confirms(self, cell: &Cell) -> bool {
        match self {
            Self::Confirms(_) => true,
            Self::Refutes(_) => false,
            Self::HoldsAsDocumented(_) => is_as_documented(cell),
        }
    }
}

/// Whether what holds as documented, and no longer, holds in this cell.
fn is_as_documented(cell: &Cell) -> bool {
    cell.dialect == Some(Dialect::Documented)
}

/// When a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Like [`Stage::Shared`], but most of its time it waits for something to pass. It is begun at once and the others fill the time.
    Waiting,
    /// Beside others: it looks only at its own routes, Services and series.
    Shared,
    /// Alone, after the shared ones: it breaks or reconfigures what others use.
    Alone,
}

/// A condition on the cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The recipe's routes answer (under the cell's dialect).
    Serves,
    /// The cluster can do this.
    Cluster(Ability),
    /// The controller's data plane can do this.
    DataPlane(Feature),
    /// It is in this mesh.
    Mesh(Mesh),
    /// The recipe's routes answer nothing: it has manifests that do not work.
    ServesNothing,
    /// The recipe has manifests that no cluster takes any more.
    RefusedManifests,
    /// The recipe has objects that make no sense, and says what becomes of them.
    BadObjects,
    /// One of them keeps the controller from every later change.
    FreezingObjects,
    /// The recipe knows how the controller has a default backend of its own.
    OwnDefaultBackend,
    /// The recipe has manifests of its own, applied as they are.
    Manifests,
    /// The recipe has manifests of its own that answer as they are.
    ManifestsServe,
    /// The recipe has this template.
    Template(&'static str),
    /// The recipe's routes have a place for this value, and so can be given another one.
    Value(&'static str),
    /// The proxy beside the controller runs in this mode.
    Mode(Mode),
    /// There is a proxy beside the controller.
    Proxy,
    /// The proxy follows this dialect.
    Dialect(Dialect),
    /// Nobody judges it in this run already: every request of the case has an override, which every dialect follows alike.
    OncePerRecipe,
    /// Nobody judges it in this run already: no request of the case comes near the controller, so all recipes of one mode and dialect
    /// come to the same.
    OncePerController,
    /// Nobody judges it in this run already: what the case looks at lies behind the choice that the recipe makes, so all recipes of the
    /// controller that promise the same come to the same.
    OncePerPromises,
    /// ServiceProfile routes show at the controller's proxy.
    RouteMetrics,
    /// They do not.
    NoRouteMetrics,
    /// Traffic splits are honoured.
    Split,
    /// They are not.
    NoSplit,
    /// The proxy chooses the pod.
    ProxyBalances,
    /// The controller chooses the pod.
    ControllerBalances,
    /// The recipe makes the controller set `l5d-dst-override`, for a proxy that follows it.
    SetsOverride,
    /// It does not, or nobody follows it.
    SetsNoOverride,
    /// The recipe says this of a client's own header.
    ClientOverride(ClientOverride),
    /// The recipe is judged with this application.
    App(&'static str),
    /// Two objects may each have routes of the same host.
    SharesHosts,
    /// The controller writes the address at which it is reached into the status of the recipe's routes.
    PublishesAddress,
    /// A request arrives with the client's Host.
    KeepsHost,
    /// The recipe says this of the controller's weights.
    Weights(Weights),
}

impl fmt::Display for Need {
    /// As the end of "it needs ...".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serves => f.write_str("a recipe whose routes answer"),
            Self::Cluster(Ability::OutsideNames) => {
                f.write_str("a cluster that can be told names of the outside world")
            }
            Self::Cluster(Ability::OutsideClients) => f.write_str("a cluster with clients outside"),
            Self::DataPlane(feature) => write!(f, "a data plane with {feature}"),
            Self::Cluster(Ability::PodProcesses) => f.write_str("a cluster on which a process of a pod can be killed"),
            Self::Mesh(mesh) => write!(f, "the mesh {}", mesh.as_str()),
            Self::ServesNothing => f.write_str("a recipe whose routes answer nothing"),
            Self::RefusedManifests => f.write_str("manifests that no cluster takes any more"),
            Self::BadObjects => f.write_str("objects that make no sense"),
            Self::FreezingObjects => f.write_str("an object that keeps the controller from every later change"),
            Self::OwnDefaultBackend => f.write_str("a default backend of the controller's own"),
            Self::Manifests => f.write_str("manifests of the recipe's own"),
            Self::ManifestsServe => f.write_str("manifests of the recipe's own that answer"),
            Self::Template(name) => write!(f, "a recipe that can express \"{name}\""),
            Self::Value(name) => write!(f, "routes that leave a choice of \"{name}\""),
            Self::Mode(mode) => write!(f, "{} mode", mode.as_str()),
            Self::Proxy => f.write_str("a proxy beside the controller"),
            Self::Dialect(dialect) => write!(f, "the dialect {}", dialect.as_str()),
            Self::OncePerRecipe => f.write_str("no other dialect of the recipe that tells the same"),
            Self::OncePerController => f.write_str("no other recipe of the controller that tells the same"),
            Self::OncePerPromises => f.write_str("no other recipe that promises the same"),
            Self::RouteMetrics => f.write_str("promised route metrics"),
            Self::NoRouteMetrics => f.write_str("no promise of route metrics"),
            Self::Split => f.write_str("promised traffic splits"),
            Self::NoSplit => f.write_str("no promise of traffic splits"),
            Self::ProxyBalances => f.write_str("a proxy that chooses the pod"),
            Self::ControllerBalances => f.write_str("a controller that chooses the pod"),
            Self::SetsOverride => f.write_str("a controller that sets l5d-dst-override"),
            Self::SetsNoOverride => f.write_str("a controller that does not set l5d-dst-override"),
            Self::ClientOverride(ClientOverride::Replaced) => f.write_str("a client's l5d-dst-override replaced"),
            Self::ClientOverride(ClientOverride::Passed) => f.write_str("a client's l5d-dst-override passed on"),
            Self::App(name) => write!(f, "the application {name}"),
            Self::SharesHosts => f.write_str("two objects that may have routes of one host"),
            Self::PublishesAddress => f.write_str("a controller that writes its address into a route's status"),
            Self::KeepsHost => f.write_str("the client's Host kept"),
            Self::Weights(Weights::Honoured) => f.write_str("the controller's weights honoured"),
            Self::Weights(Weights::Void) => f.write_str("the controller's weights void"),
        }
    }
}

/// How it begins why a case does not apply that another cell of the run judges, whose name follows.
const UNDER_EVERY_DIALECT: &str = "the same under every dialect, and judged under ";
const FOR_EVERY_RECIPE: &str = "the same for every recipe of the controller, and judged in ";
const FOR_THE_SAME_PROMISES: &str =
    "the same for every recipe of the controller that promises the same, and judged in ";

/// Which other cell of a run judges what a case does not apply to here only because it comes to the same there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeftTo<'a> {
    /// The one of the same recipe under this dialect.
    Dialect(&'a str),
    /// The one of this recipe, in the same mode and dialect.
    Recipe(&'a str),
}

impl<'a> LeftTo<'a> {
    /// Read from why the case does not apply, as a report has it; `None` where it has other reasons.
    pub fn of(reason: &'a str) -> Option<Self> {
        let recipe = || reason.strip_prefix(FOR_EVERY_RECIPE).or_else(|| reason.strip_prefix(FOR_THE_SAME_PROMISES));
        reason.strip_prefix(UNDER_EVERY_DIALECT).map(Self::Dialect).or_else(|| recipe().map(Self::Recipe))
    }
}

/// Why a case does not apply that is about the proxy beside the controller.
const NO_PROXY: &str = "the load balancer is outside the mesh: there is no proxy beside it";

/// Why a case of another mode does not apply.
fn only_in(wanted: Mode, found: Mode) -> String {
    match (wanted, found) {
        (Mode::Outside, _) => "only where the load balancer is outside the mesh".to_owned(),
        (_, Mode::Outside) => NO_PROXY.to_owned(),
        (wanted, _) => format!("only in {} mode", wanted.as_str()),
    }
}

impl Need {
    /// `None` when the cell has it, else why the case does not apply.
    pub fn missing(self, cell: &Cell, recipe: &Recipe, promises: &Promises) -> Option<String> {
        let (holds, why): (bool, String) = match self {
            Self::Serves if promises.serves && !recipe.templates.contains_key("route") => {
                (false, "the recipe has no routes but those of its manifests".into())
            }
            Self::Serves => (promises.serves, "the recipe promises no working route here".into()),
            Self::Cluster(ability) => {
                let why = cell.cluster.lacks(ability);
                (why.is_none(), why.unwrap_or_default().into())
            }
            Self::DataPlane(feature) => {
                let lack = cell.lacks.iter().find(|lack| lack.feature == feature);
                (lack.is_none(), lack.map(|lack| lack.why.clone()).unwrap_or_default())
            }
            Self::Mesh(mesh) => (cell.mesh == mesh, format!("only in the mesh {}", mesh.as_str())),
            Self::ServesNothing => (!promises.serves, "the recipe's routes work".into()),
            Self::RefusedManifests => {
                (!recipe.refused.is_empty(), "the recipe has no manifests that are refused".into())
            }
            Self::BadObjects => (
                !recipe.bad.is_empty(),
                "objects that make no sense are judged in another recipe of the controller".into(),
            ),
            Self::FreezingObjects => (
                recipe.bad.values().any(|bad| bad.freezes),
                "the recipe knows no object that keeps the controller from every later change".into(),
            ),
            Self::OwnDefaultBackend => (
                recipe.own_default_backend.is_some(),
                "the recipe knows no default backend of the controller's own".into(),
            ),
            Self::Manifests => (!recipe.manifests.is_empty(), "the recipe has no manifests of its own".into()),
            Self::ManifestsServe => (
                promises.serves && !recipe.manifests.is_empty(),
                "the recipe has no manifests of its own that answer".into(),
            ),
            Self::Template(name) => {
                (recipe.templates.contains_key(name), format!("the recipe cannot express \"{name}\""))
            }
            Self::Value(name) => (
                recipe.templates.get("route").is_some_and(|route| route.takes(name)),
                format!("the recipe's routes leave no choice of \"{name}\""),
            ),
            Self::Mode(mode) => (cell.mode == mode, only_in(mode, cell.mode)),
            Self::Proxy => (cell.mode.has_proxy(), NO_PROXY.into()),
            Self::Dialect(dialect) => {
                (cell.dialect == Some(dialect), format!("only under the dialect {}", dialect.as_str()))
            }
            Self::OncePerRecipe => {
                let beside = cell.beside.map_or("", Dialect::as_str);
                (cell.beside.is_none(), format!("{UNDER_EVERY_DIALECT}{beside}"))
            }
            Self::OncePerController => {
                let judge = cell.shared_in.as_deref().unwrap_or_default();
                (cell.shared_in.is_none(), format!("{FOR_EVERY_RECIPE}{judge}"))
            }
            Self::OncePerPromises => {
                let judge = cell.alike_in.as_deref().unwrap_or_default();
                (cell.alike_in.is_none(), format!("{FOR_THE_SAME_PROMISES}{judge}"))
            }
            Self::RouteMetrics => {
                (promises.route_metrics, "the recipe promises no route metrics at the controller".into())
            }
            Self::NoRouteMetrics => (!promises.route_metrics, "the recipe promises route metrics".into()),
            Self::Split => (promises.split, "the recipe promises no traffic split".into()),
            Self::NoSplit => (!promises.split, "the recipe promises traffic splits".into()),
            Self::ProxyBalances => (promises.balances == Balances::Proxy, "the controller chooses the pod".into()),
            Self::ControllerBalances => (promises.balances == Balances::Controller, "the proxy chooses the pod".into()),
            Self::SetsOverride => (
                cell.mode == Mode::Ingress && promises.sets_override,
                if cell.mode.has_proxy() {
                    "the recipe does not make the controller set l5d-dst-override".into()
                } else {
                    NO_PROXY.into()
                },
            ),
            Self::SetsNoOverride => (
                cell.mode != Mode::Ingress || !promises.sets_override,
                "the recipe makes the controller set l5d-dst-override".into(),
            ),
            Self::ClientOverride(fate) => (
                promises.client_override == fate,
                match fate {
                    ClientOverride::Replaced => "nothing takes the place of a client's own l5d-dst-override".into(),
                    ClientOverride::Passed => "a client's own l5d-dst-override is replaced".into(),
                },
            ),
            Self::App(name) => {
                (recipe.apps.iter().any(|app| app == name), format!("the recipe is not judged with {name}"))
            }
            Self::SharesHosts => (promises.shares_hosts, "the controller takes no two objects for one host".into()),
            Self::PublishesAddress => (
                !recipe.publishes.is_empty(),
                "the controller does not write its address into the status of the recipe's routes".into(),
            ),
            Self::KeepsHost => {
                (promises.keeps_host, "the controller puts another Host in place of the client's".into())
            }
            Self::Weights(weights) => (
                promises.weights == Some(weights),
                "the recipe says nothing like it of the controller's weights".into(),
            ),
        };
        (!holds).then_some(why)
    }
}

impl Case {
    /// The id as one label of a host name: `routing-host`.
    pub fn slug(&self) -> String {
        self.id.replace(['/', '_'], "-")
    }

    /// Whether it makes TrafficSplits, to see what they do or that they do nothing.
    pub fn splits(&self) -> bool {
        self.needs.iter().any(|need| matches!(need, Need::Split | Need::NoSplit))
    }

    /// The area: what stands before the slash.
    pub fn area(&self) -> &'static str {
        self.id.split('/').next().unwrap_or(self.id)
    }

    /// `None` when the case applies to the cell, else why not.
    pub fn not_applicable(&self, cell: &Cell, recipe: &Recipe) -> Option<String> {
        let promises = recipe.promises(cell.variant());
        let missing = self.needs.iter().find_map(|need| need.missing(cell, recipe, promises));
        missing.or_else(|| self.planned(recipe).inexpressible(recipe))
    }

    /// What a pass says of the page's claims, by their ids: whether each holds. It says so by itself and in this recipe.
    pub fn says(&self, cell: &Cell, recipe: &Recipe) -> BTreeMap<String, bool> {
        let mut said: BTreeMap<String, bool> =
            self.claims.iter().map(|evidence| (evidence.claim().to_owned(), evidence.confirms(cell))).collect();
        if let Some(says) = recipe.claims.get(self.id) {
            let lists =
                [(&says.confirms, true), (&says.refutes, false), (&says.holds_as_documented, is_as_documented(cell))];
            for (claims, holds) in lists {
                said.extend(claims.iter().map(|claim| (claim.clone(), holds)));
            }
        }
        said
    }

    /// Its plan, with the hosts that the recipe wants.
    pub fn planned(&self, recipe: &Recipe) -> Plan {
        let mut plan = Plan::new(self.slug());
        (self.plan)(&mut plan);
        if let Some(form) = &recipe.host {
            plan.hosts(form);
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use meshgate_clusters::Lack;
    use meshgate_fixtures::Fixtures;
    use serde_json::json;

    use super::*;
    use crate::matrix::{self, Place, Selection};
    use crate::verdict::Outcome;

    #[test]
    fn what_a_data_plane_lacks_is_the_reason() {
        let fixtures = Fixtures::built_in().unwrap();
        let mut cell = matrix::cells(&fixtures, &Selection::default(), Place::USUAL).unwrap().remove(0);
        let recipe = fixtures.controller(&cell.controller).unwrap().recipe(&cell.recipe).unwrap();
        let need = Need::DataPlane(Feature::Http2WithoutTls);
        let missing = |cell: &Cell| need.missing(cell, recipe, recipe.promises(cell.variant()));
        assert_eq!(missing(&cell), None);
        cell.lacks.push(Lack { feature: Feature::Http2WithoutTls, why: "this one is too old".into() });
        assert_eq!(missing(&cell).as_deref(), Some("this one is too old"));
        assert_eq!(need.to_string(), "a data plane with HTTP/2 without TLS");
    }

    #[test]
    fn a_recipe_says_of_a_claim_what_a_case_can_say() {
        let fixtures = Fixtures::built_in().unwrap();
        let cells = matrix::cells(&fixtures, &Selection::default(), Place::USUAL).unwrap();
        let mut recipe = fixtures.controllers[0].recipes[0].clone();
        let says = json!({"confirms": ["holds"], "refutes": ["does-not"], "holds_as_documented": ["did"]});
        recipe.claims = serde_json::from_value(json!({"a/b": says})).unwrap();
        let case = Case {
            id: "a/b",
            summary: "",
            needs: &[],
            claims: &[Evidence::Confirms("by-itself"), Evidence::HoldsAsDocumented("by-itself-did")],
            stage: Stage::Shared,
            plan: |_| {},
            run: |_| Box::pin(async { Ok(Outcome::Pass) }),
        };
        for (dialect, did) in [(Dialect::Documented, true), (Dialect::Modern, false)] {
            let cell = cells.iter().find(|cell| cell.dialect == Some(dialect)).unwrap();
            let said =
                [("by-itself", true), ("by-itself-did", did), ("did", did), ("does-not", false), ("holds", true)];
            let said = said.into_iter().map(|(claim, holds)| (claim.to_owned(), holds)).collect();
            assert_eq!(case.says(cell, &recipe), said, "{dialect:?}");
        }
    }
}
