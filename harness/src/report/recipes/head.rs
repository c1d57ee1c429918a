//! What stands above the controllers: where and when it was measured, how to read it, and what to use.

use std::fmt::Write;

use meshgate_fixtures::{Balances, ClientOverride, Mode, Weights};

use super::choice::best;
use super::{COMMAND, Seen, link};
use crate::matrix::Mesh;
use crate::report::{CellReport, Report, Totals};

/// The page whose recipes these are.
const PAGE: &str = "https://linkerd.io/2/tasks/using-ingress/";

/// What stands for something in the templates.
pub const PLACEHOLDERS: [(&str, &str); 18] = [
    ("name", "the object's name, any"),
    ("namespace", "the namespace of the Service, and so of the objects beside it"),
    ("host", "the host that clients ask for"),
    ("path", "the path that they ask for, or its beginning"),
    ("service", "the name of the Service behind the controller"),
    ("port", "the number of its port"),
    ("override", "`${service}.${namespace}.svc.cluster.local:${port}`, the value of `l5d-dst-override`"),
    ("service_b", "the second of two Services with weights"),
    ("override_b", "the value of `l5d-dst-override` for it"),
    ("weight", "the weight of the first"),
    ("weight_b", "the weight of the second"),
    ("auth_url", "the URL of who is asked, such as `http://auth.${namespace}.svc.cluster.local/`"),
    ("auth_override", "its host and port, such as `auth.${namespace}.svc.cluster.local:80`"),
    ("error_service", "the Service that serves error pages"),
    ("error_override", "the value of `l5d-dst-override` for it"),
    ("secret", "a Secret with the certificate of the host and its key"),
    ("webhook_certificate", "the certificate of a webhook's Service, which is its own authority, base64 of PEM"),
    ("webhook_key", "its key"),
];

/// Everything above the table of what to use.
pub(super) fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let environment = &report.environment;
    let Totals { pass, finding, fail, not_run, .. } = report.totals;
    let unique = |what: fn(&CellReport) -> &str| {
        let mut found: Vec<&str> = report.cells.iter().map(what).collect();
        found.sort_unstable();
        found.dedup();
        found.join(", ")
    };
    writeln!(
        out,
        "# Recipes, as measured\n\n\
         How to run Linkerd with each ingress controller today: for each controller and each mode of the proxy beside it the recipe to use, what it\n\
         was measured to do, and what \"the page\" says that no longer holds. The page is [Using ingress]({PAGE})\n\
         of Linkerd's documentation, \"Ingress traffic\", in the words of its time: it begins with \"As of Linkerd version 2.9, there are two ways\". The\n\
         address has what became of it since.\n\n\
         | | |\n|---|---|\n\
         | measured | {}, in {:.0} seconds |\n\
         | by | Meshgate {} on {}, kernel {}, {} processors |\n\
         | cluster | {} |\n\
         | mesh | {} |\n\
         | cells | {}, each a controller with a recipe in one mode or dialect |\n\
         | verdicts | {pass} as promised, {finding} findings, {fail} not as promised, {not_run} not run |\n\n\
         Written by `{COMMAND}` from the report of a run.\n",
        environment.started,
        environment.seconds,
        environment.meshgate,
        environment.os,
        environment.kernel,
        environment.cpus,
        unique(|cell| &cell.cluster),
        unique(|cell| match cell.mesh {
            Mesh::Bundled => "bundled: Meshgate's own proxy and control plane, which behave as Linkerd's",
            Mesh::Linkerd => "Linkerd's own",
        }),
        report.cells.len(),
    )?;
    writeln!(
        out,
        "## How to read it\n\n\
         The mode of the proxy beside the controller is an annotation of the controller's own pod template: `linkerd.io/inject: enabled` is *default*\n\
         mode, `linkerd.io/inject: ingress` is *ingress* mode. In mode *outside* what carries the traffic is no pod of the cluster, and there is nothing to\n\
         annotate. The Services behind are in the mesh as any others are (`linkerd.io/inject: enabled`).\n\n\
         In ingress mode a recipe runs under two dialects of the proxy: `documented` routes as the page says (the override, then `:authority`, then\n\
         `Host`), `modern` as today's Linkerd does (the override, else the address that was dialled). What to use is decided by `modern`.\n\n\
         A recipe's promises are what its cases assert. How many of them found it so stands beside them as what was measured, with how many are judged\n\
         elsewhere since they cannot differ. A *finding* is a weakness that the recipe declares, with what to do against it, and that a case observed as\n\
         declared.\n\n\
         A *stand-in* is a program of Meshgate's in the place of a control plane that cannot be had as one, in front of the data plane that is named\n\
         with it: what is said of such a controller is said of the configuration that it should generate, and the real control plane was not run.\n\n\
         Placeholders in the manifests:\n\n| | |\n|---|---|"
    )?;
    for (name, meaning) in PLACEHOLDERS {
        writeln!(out, "| `${{{name}}}` | {meaning} |")?;
    }
    Ok(())
}

/// What to use, a row for each controller and mode.
pub(super) fn overview(controllers: &[Seen<'_>], out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "\n## What to use\n\n\
         For each controller and mode one recipe, with what it promises under today's proxy. It is the one that promises most of those that kept their\n\
         promises and let no client choose the destination; of several that promise the same, the one that can express more, then the one with fewer\n\
         weaknesses of its own, then the first by name. A row of default mode that says \"the proxy\", \"yes\" and \"yes\" does what ingress mode is for, and\n\
         needs no header for it.\n\n\
         | controller | mode | use | pods are chosen by | route metrics | traffic splits | a client's l5d-dst-override | weights of the controller |\n\
         |---|---|---|---|---|---|---|---|"
    )?;
    let yes = |yes| if yes { "yes" } else { "no" };
    for seen in controllers {
        let name = &seen.controller.name;
        let row = seen.planes.note().map_or_else(|| name.clone(), |note| format!("{name} ({note})"));
        for mode in Mode::ALL {
            let working = seen.working(mode);
            let Some(judged) = best(&working) else {
                if seen.recipes.iter().any(|judged| judged.recipe.mode == mode) {
                    writeln!(out, "| {row} | {} | none | | | | | |", mode.as_str())?;
                }
                continue;
            };
            let promises = judged.promises();
            writeln!(
                out,
                "| {row} | {} | {} | {} | {} | {} | {} | {} |",
                mode.as_str(),
                link(name, &judged.recipe.name),
                match promises.balances {
                    Balances::Proxy => "the proxy",
                    Balances::Controller => "the controller",
                },
                yes(promises.route_metrics),
                yes(promises.split),
                match promises.client_override {
                    ClientOverride::Replaced => "is replaced",
                    ClientOverride::Passed => "is passed on, and not acted upon",
                },
                match promises.weights {
                    Some(Weights::Honoured) => "count",
                    Some(Weights::Void) => "are void",
                    None => "it has none",
                }
            )?;
        }
    }
    Ok(())
}
