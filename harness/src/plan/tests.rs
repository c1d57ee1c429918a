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

#[test]
fn a_recipe_says_what_hosts_look_like_and_a_case_may_ask_for_another() {
    let mut plan = Plan::new("routing-host");
    plan.serve("main", Backend::A);
    plan.serve("own", Backend::A).host("example.com");
    plan.route_to("votes", "emojivoto", "web-svc");
    plan.hosts("${service}.${namespace}");
    let hosts: Vec<&str> = ["main", "own", "votes"].map(|name| plan.routes[name].host.as_str()).to_vec();
    assert_eq!(hosts, ["routing-host-main.workbench", "example.com", "web-svc.emojivoto"]);
}

#[test]
fn annotations_of_services_may_name_the_service() {
    let fixtures = meshgate_fixtures::Fixtures::built_in().unwrap();
    let mut recipes = fixtures.controllers.values().flat_map(|controller| controller.recipes.values());
    let names_it = |recipe: &&Recipe| recipe.service_annotations.values().any(|value| value.contains("${service}"));
    let recipe = recipes.find(names_it).unwrap();
    let mut plan = Plan::new("routing-host");
    let service = plan.service("web", Backend::A).object(recipe);
    let annotations = service["metadata"]["annotations"].to_string();
    assert!(annotations.contains("routing-host-web") && !annotations.contains("${"), "{annotations}");
}
