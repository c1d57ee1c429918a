//! The report as JUnit XML: a suite per cell.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use crate::report::Report;
use crate::verdict::Verdict;

/// The XML text.
pub fn render(report: &Report) -> String {
    let mut junit = Junit::new("meshgate");
    for cell in &report.cells {
        let mut suite = TestSuite::new(cell.id.clone());
        suite
            .add_property(("control-plane", cell.implementation.control_plane.as_str()))
            .add_property(("data-plane", cell.implementation.data_plane.as_str()))
            .add_property(("mesh", cell.mesh.as_str()))
            .add_property(("cluster", cell.cluster.as_str()));
        if let Some(broken) = &cell.broken {
            suite.set_system_err(broken.clone());
        }
        for case in &cell.cases {
            let reason = case.reason.clone().unwrap_or_default();
            let status = match case.verdict {
                Verdict::Pass | Verdict::Finding => TestCaseStatus::success(),
                Verdict::NotApplicable => {
                    let mut status = TestCaseStatus::skipped();
                    status.set_message(reason.clone());
                    status
                }
                Verdict::Fail | Verdict::NotRun => {
                    let kind =
                        if case.verdict == Verdict::Fail { NonSuccessKind::Failure } else { NonSuccessKind::Error };
                    let mut status = TestCaseStatus::non_success(kind);
                    status.set_type(case.verdict.as_str()).set_message(reason.clone());
                    status
                }
            };
            let mut test = TestCase::new(case.id.clone(), status);
            test.set_classname(cell.id.clone()).set_time(Duration::from_secs_f64(case.seconds));
            if case.verdict == Verdict::Finding {
                test.set_system_out(format!("finding: {reason}"));
            }
            suite.add_test_case(test);
        }
        junit.add_test_suite(suite);
    }
    junit.to_string().unwrap_or_else(|error| format!("<!-- {error} -->\n"))
}
