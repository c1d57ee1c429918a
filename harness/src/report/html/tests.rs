use std::path::Path;

use super::*;
use crate::report::tests::{case, cell, report};

#[test]
fn what_comes_from_elsewhere_is_text() {
    let mut failed = case("routing/host", Verdict::Fail);
    failed.reason = Some("</script><script>alert(1)</script>".into());
    failed.artefacts.push("../secret".into());
    let mut broken = cell("<img src=x onerror=alert(1)>", None, vec![failed]);
    broken.implementation.data_plane = "\"><script>alert(2)</script>".into();
    let page = render(&report(vec![broken]), Path::new("."));
    assert_eq!(page.matches("<script").count(), 2, "the data and the script");
    assert_eq!(page.matches("</script").count(), 2);
    assert!(!page.contains("<img"), "{page}");
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"));
    assert!(page.contains("\\u003c/script>\\u003cscript>alert(1)"));
}

#[test]
fn the_policy_knows_the_script_and_the_style_of_the_page() {
    let page = render(&report(vec![]), Path::new("."));
    for (open, close) in [("<script>", "</script>"), ("<style>", "</style>")] {
        let inline = page.split_once(open).unwrap().1.split_once(close).unwrap().0;
        assert!(page.contains(&digest(inline)), "{open}");
    }
    assert!(page.contains("default-src 'none'"));
    assert!(!page.contains("http://www.w3.org/1999") && !page.contains("https://"), "nothing is fetched");
}

#[test]
fn the_ends_of_files_are_in_the_page_and_no_file_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("report");
    std::fs::create_dir_all(folder.join("artefacts")).unwrap();
    std::fs::write(dir.path().join("secret"), "hidden").unwrap();
    std::fs::write(folder.join("artefacts/log"), format!("begin{}end", "x".repeat(TAIL as usize))).unwrap();
    let mut failed = case("routing/host", Verdict::Fail);
    let absolute = dir.path().join("secret").display().to_string();
    failed.artefacts = vec!["artefacts/log".into(), "../secret".into(), absolute, "artefacts/gone".into()];
    let report = report(vec![cell("a", None, vec![failed])]);
    let files = files(&report, &folder);
    assert_eq!(files.keys().collect::<Vec<_>>(), [&"artefacts/log"]);
    assert!(files["artefacts/log"].text.ends_with("end"));
    assert_eq!((files["artefacts/log"].text.len() as u64, files["artefacts/log"].before), (TAIL, 8));
}

#[test]
fn the_matrix_is_readable_without_a_script() {
    let report = report(vec![cell(
        "a",
        None,
        vec![
            case("routing/host", Verdict::Pass),
            case("routing/path", Verdict::Finding),
            case("tls/x", Verdict::NotApplicable),
        ],
    )]);
    let page = render(&report, Path::new("."));
    assert!(page.contains("<a href=\"#cell=c@1.0.0/a/default&amp;area=routing\">1 +1</a>"), "{page}");
    assert!(page.contains("<td class=\"not-applicable\" data-area=\"tls\">–</td>"), "{page}");
}
