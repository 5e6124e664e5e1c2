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

/// The renames of a put-back, if the server has these databases.
fn back(numbers: Option<Numbers>, state: State, oids: &[(&str, u32)]) -> Option<Vec<String>> {
    let oids = oids.iter().map(|(name, oid)| ((*name).to_owned(), *oid)).collect();
    plan_renames_back(&plan(numbers), state, &oids).ok()
}

#[test]
fn a_live_database_is_only_renamed_if_the_old_one_exists() {
    let new_leaves = rename("live", "staged");
    let old_returns = rename("aside", "live");
    let both = Some(vec![new_leaves.clone(), old_returns.clone()]);
    let known = Some(Numbers { new: 2, old: Some(1) });
    for state in [State::Switching, State::Switched] {
        assert_eq!(back(known, state, &[("live", 2), ("aside", 1)]), both);
        assert_eq!(back(known, state, &[("live", 1), ("staged", 2)]), Some(vec![]));
        assert_eq!(back(known, state, &[("aside", 1)]), Some(vec![old_returns.clone()]));
        // The old database is gone, or another one has its name.
        assert_eq!(back(known, state, &[("live", 2)]), None);
        assert_eq!(back(known, state, &[("live", 2), ("aside", 3)]), None);
        // The live database is neither of the two.
        assert_eq!(back(known, state, &[("live", 3), ("aside", 1)]), None);
        assert_eq!(back(known, state, &[("live", 2), ("aside", 1), ("staged", 3)]), None);
        // There was no database before.
        let first = Some(Numbers { new: 2, old: None });
        assert_eq!(back(first, state, &[("live", 2)]), Some(vec![new_leaves.clone()]));
        assert_eq!(back(first, state, &[("live", 3)]), Some(vec![]));
        // The journal of an older version has no numbers.
        assert_eq!(back(None, state, &[("live", 2), ("aside", 1)]), both);
        assert_eq!(back(None, state, &[("live", 1), ("staged", 2)]), Some(vec![]));
    }
    assert_eq!(back(None, State::Switched, &[("live", 2)]), None);
}
