//! A port by its name, in the route and in the header.

use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, NAMESPACE, Plan};
use meshgate_harness::verdict::{CaseResult, Outcome, check};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "tls/string-port-override",
        summary: "A named port in l5d-dst-override becomes 80, whatever port the route names",
        needs: &[Need::Serves, Need::Template("string-port"), Need::SetsOverride, Need::OncePerRecipe],
        claims: &[Evidence::Confirms("notes.numeric-port"), Evidence::Confirms("notes.string-port-80")],
        stage: Stage::Shared,
        plan: named_port,
        // The Service's port 80 leads to 8080.
        run: |context| Box::pin(port_reached(context, 8080)),
    },
    Case {
        id: "tls/string-port-resolved",
        summary: "A named port in the route reaches that port when the controller resolves it and sets no header",
        needs: &[Need::Serves, Need::Template("string-port"), Need::SetsNoOverride],
        claims: &[Evidence::Refutes("notes.numeric-port")],
        stage: Stage::Shared,
        plan: named_port,
        run: |context| Box::pin(port_reached(context, 8081)),
    },
];

fn named_port(plan: &mut Plan) {
    let name = format!("{}.{NAMESPACE}.svc.cluster.local:alt", plan.full("main"));
    plan.serve("main", Backend::B).template("string-port").value("port_name", "alt").value("override_named", name);
    // The control: the same Service by the port's number.
    plan.route("number", "main").port(8081);
}

async fn port_reached(context: Context, expected: u16) -> CaseResult {
    check("the port that takes a request for 8081").equal(context.seen("number").await?.port, 8081)?;
    check("the port that takes a request for \"alt\"").equal(context.seen("main").await?.port, expected)?;
    Ok(Outcome::Pass)
}
