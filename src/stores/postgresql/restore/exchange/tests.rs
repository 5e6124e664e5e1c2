use super::*;

fn plan(numbers: Option<Numbers>) -> RestorePlan {
    let database = serde_json::from_value(
        serde_json::json!({"name": "live", "directory": "live", "owner": "", "encoding": "", "collate": "", "ctype": "", "bytes": 0}),
    )
    .unwrap();
    let staged = StagedDatabase {
        database,
        staged: "staged".to_owned(),
        replaced: "aside".to_owned(),
        numbers,
    };
    RestorePlan {
        run: None,
        postgresql: None,
        databases: vec![staged],
        redis_part: None,
        redis: Vec::new(),
        files: None,
        layouts: Vec::new(),
        beside: None,
    }
}

/// What a put-back does with these databases on the server.
fn back(numbers: Option<Numbers>, state: State, there: &[(&str, u32)]) -> Option<Vec<String>> {
    let there = there.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
    way_back(&plan(numbers), state, &there).ok()
}

#[test]
fn no_live_database_makes_way_for_nothing() {
    let away = rename("live", "staged");
    let home = rename("aside", "live");
    let both = Some(vec![away.clone(), home.clone()]);
    let known = Some(Numbers { new: 2, old: Some(1) });
    for state in [State::Switching, State::Switched] {
        assert_eq!(back(known, state, &[("live", 2), ("aside", 1)]), both);
        assert_eq!(back(known, state, &[("live", 1), ("staged", 2)]), Some(vec![]));
        assert_eq!(back(known, state, &[("aside", 1)]), Some(vec![home.clone()]));
        // The old copy is gone, or another has its name.
        assert_eq!(back(known, state, &[("live", 2)]), None);
        assert_eq!(back(known, state, &[("live", 2), ("aside", 3)]), None);
        // What is live is neither of the two.
        assert_eq!(back(known, state, &[("live", 3), ("aside", 1)]), None);
        assert_eq!(back(known, state, &[("live", 2), ("aside", 1), ("staged", 3)]), None);
        // There was none before.
        let first = Some(Numbers { new: 2, old: None });
        assert_eq!(back(first, state, &[("live", 2)]), Some(vec![away.clone()]));
        assert_eq!(back(first, state, &[("live", 3)]), Some(vec![]));
        // The journal of an older version has no numbers.
        assert_eq!(back(None, state, &[("live", 2), ("aside", 1)]), both);
        assert_eq!(back(None, state, &[("live", 1), ("staged", 2)]), Some(vec![]));
    }
    assert_eq!(back(None, State::Switched, &[("live", 2)]), None);
}
