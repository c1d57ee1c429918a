use super::*;

#[test]
fn what_is_read_by_an_instance_is_what_its_cases_and_every_case_need() {
    let plans = [Plan::new("loops-hairpin"), Plan::new("loops-two-hops")];
    assert_eq!(selector(plans.iter()), "meshgate.dev/case in (every,loops-hairpin,loops-two-hops)");
}

#[test]
fn a_label_joins_those_that_are_there() {
    let mut object = json!({"metadata": {"name": "web", "labels": {"app": "web"}}});
    label(&mut object, "routing-host");
    assert_eq!(object["metadata"]["labels"], json!({"app": "web", "meshgate.dev/case": "routing-host"}));
    let mut bare = json!({"metadata": {"name": "web"}});
    label(&mut bare, EVERY);
    assert_eq!(bare["metadata"]["labels"], json!({"meshgate.dev/case": "every"}));
}

#[test]
fn an_object_whose_metadata_makes_no_sense_stays_as_it_is() {
    for object in [json!({}), json!(null), json!({"metadata": "web"}), json!({"metadata": {"labels": "app"}})] {
        let mut labelled = object.clone();
        label(&mut labelled, EVERY);
        assert_eq!(labelled, object);
    }
}
