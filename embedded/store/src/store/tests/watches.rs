//! Watches: where they begin, what they see, how they end.

use super::*;

#[test]
fn a_watch_sees_objects_enter_and_leave_its_selector() {
    let store = Store::new();
    let selectors = Selectors { labels: "value=1".to_owned(), fields: String::new() };
    store.create(&configmaps(), "default", config("a", "1"), &options()).unwrap();
    let mut watch = store.watch(&configmaps(), Some("default"), &selectors, Start::InitialEvents).unwrap();
    let begun = store.revision();
    store.update(&configmaps(), "default", "a", Subresource::Main, config("a", "2"), &options()).unwrap();
    store.update(&configmaps(), "default", "a", Subresource::Main, config("a", "1"), &options()).unwrap();
    store.create(&configmaps(), "kube-system", config("a", "1"), &options()).unwrap();
    store.delete(&configmaps(), "default", "a", &DeleteOptions::default()).unwrap();
    let events = drain(&mut watch);
    let [Event::Added(_), Event::InitialEventsEnd(end), Event::Deleted(left), Event::Added(_), Event::Deleted(gone)] =
        events.as_slice()
    else {
        panic!("unexpected events: {events:?}")
    };
    assert_eq!(*end, begun);
    assert_eq!(revision_of(left), begun + 1, "a leaving object carries the revision of its leaving");
    assert_eq!(left["data"]["key"], "1", "and is told as it was");
    assert_eq!(revision_of(gone), store.revision());
}

#[test]
fn a_watch_outside_the_window_is_refused() {
    let store = Store::new();
    let created = store.create(&configmaps(), "default", config("a", "1"), &options()).unwrap();
    let watch = |after| store.watch(&configmaps(), None, &Selectors::default(), Start::After(after));
    for outside in [1, store.revision() + 1] {
        let error = watch(outside).unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (410, "Expired"));
    }
    assert!(watch(revision_of(&created)).is_ok());
    assert!(watch(revision_of(&created) - 1).is_ok());
    for turn in 0..5000 {
        store
            .update(&configmaps(), "default", "a", Subresource::Main, config("a", &turn.to_string()), &options())
            .unwrap();
    }
    assert_eq!(watch(revision_of(&created)).unwrap_err().code, 410);
    assert_eq!(drain(&mut watch(store.revision() - 256).unwrap()).len(), 256);
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_closed() {
    let store = Store::new();
    store.create(&configmaps(), "default", config("a", "1"), &options()).unwrap();
    let mut watch = store.watch(&configmaps(), None, &Selectors::default(), Start::Now).unwrap();
    for turn in 0..17_000 {
        store
            .update(&configmaps(), "default", "a", Subresource::Main, config("a", &turn.to_string()), &options())
            .unwrap();
    }
    let mut seen = 0;
    while watch.next().await.is_some() {
        seen += 1;
    }
    assert!((16_000..17_000).contains(&seen), "{seen}");
}

mod replay {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u8, u8),
        Delete(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..6u8, 0..3u8).prop_map(|(name, value)| Step::Write(name, value)),
            1 => (0..6u8).prop_map(Step::Delete),
        ];
        proptest::collection::vec(step, 0..40)
    }

    fn perform(store: &Store, step: &Step) {
        match step {
            Step::Write(name, value) => {
                let (name, object) = (format!("n{name}"), config(&format!("n{name}"), &value.to_string()));
                if store.get(&configmaps(), "default", &name).is_ok() {
                    store.update(&configmaps(), "default", &name, Subresource::Main, object, &options()).unwrap();
                } else {
                    store.create(&configmaps(), "default", object, &options()).unwrap();
                }
            }
            Step::Delete(name) => {
                let _ = store.delete(&configmaps(), "default", &format!("n{name}"), &DeleteOptions::default());
            }
        }
    }

    type Known = BTreeMap<String, Object>;

    fn by_name(objects: Vec<Object>) -> Known {
        objects.into_iter().map(|object| (object["metadata"]["name"].as_str().unwrap().to_owned(), object)).collect()
    }

    fn replay(known: &mut Known, events: Vec<Event>) {
        for event in events {
            let name = |object: &Object| object["metadata"]["name"].as_str().unwrap().to_owned();
            match event {
                Event::Added(object) => assert!(known.insert(name(&object), object).is_none()),
                Event::Modified(object) => assert!(known.insert(name(&object), object).is_some()),
                Event::Deleted(object) => assert!(known.remove(&name(&object)).is_some()),
                Event::InitialEventsEnd(_) => {}
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// A list and the watch after it make the later list; so does a watch with initial events; with a selector too.
        #[test]
        fn a_watch_replayed_onto_a_list_is_the_later_list(before in steps(), between in steps(), after in steps()) {
            for labels in ["", "value=1", "value!=1"] {
                let store = Store::new();
                let selectors = Selectors { labels: labels.to_owned(), fields: String::new() };
                before.iter().for_each(|step| perform(&store, step));
                let list = store.list(&configmaps(), None, &selectors).unwrap();
                let mut whole = store.watch(&configmaps(), None, &selectors, Start::InitialEvents).unwrap();
                between.iter().for_each(|step| perform(&store, step));
                let mut late = store.watch(&configmaps(), None, &selectors, Start::After(list.revision)).unwrap();
                after.iter().for_each(|step| perform(&store, step));
                let wanted = by_name(store.list(&configmaps(), None, &selectors).unwrap().items);
                let mut known = by_name(list.items);
                replay(&mut known, drain(&mut late));
                prop_assert_eq!(&known, &wanted);
                let mut known = Known::new();
                replay(&mut known, drain(&mut whole));
                prop_assert_eq!(&known, &wanted);
            }
        }
    }
}
