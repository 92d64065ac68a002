//! What an event would come to, held or not.

use super::*;

#[test]
fn a_trial_is_of_the_next_event_or_of_the_one_that_is_named_and_leaves_nothing() {
    run(async {
        let world = World::new();
        let (row, _) = world.order(3, 1).await;
        let order = row.order;
        world.put(row, Vec::new());
        let (before, letters) = (world.row(order), world.letters());
        for (asked, tried) in [(None, 2), (Some(1), 1), (Some(3), 3)] {
            let trial = letters.trial(order, asked.map(Version)).await.unwrap();
            assert_eq!((trial.version, trial.applied), (Version(tried), Version(1)));
            assert_eq!(trial.event_type.as_deref(), Some("order.item_added"));
            let DryRun::Applied(would) = trial.run else { panic!("it is handled") };
            assert_eq!((would.effects, would.documents.len()), (vec![tried.to_string().into()], 1));
        }
        assert_eq!(letters.trial(order, Some(Version(4))).await.unwrap().run, DryRun::NotInLog);
        let never_met = world.store(first(1)).await.order();
        let trial = letters.trial(never_met, None).await.unwrap();
        assert_eq!((trial.version, trial.applied), (Version(1), Version::NONE));
        world.diary.fails.store(true, Ordering::SeqCst);
        assert!(matches!(letters.trial(order, None).await.unwrap().run, DryRun::Failed(_)));
        assert_eq!(world.row(order), before);
        assert!(world.inbox.all_effects().is_empty() && world.diary.performed.lock().unwrap().is_empty());
    });
}

#[test]
fn what_may_end_the_process_is_under_way_or_contradicts_the_log_is_not_tried() {
    run(async {
        let world = World::new();
        world.diary.panics.store(true, Ordering::SeqCst);
        let letters = world.letters();
        let ended = "the process ended 5 times while this was attempted";
        let id = world.held(HoldState::Dead, 1, 10, Failure::permanent(ended)).await;
        assert_eq!(letters.trial(id.order, None).await.unwrap().run, DryRun::EndsProcesses);
        let began = Failure::transient("this attempt began, and nobody knows how it ended");
        let id = world.held(HoldState::Attempting, 1, 20, began).await;
        let busy = letters.trial(id.order, Some(id.version)).await;
        assert!(matches!(busy, Err(LetterError::Refused(Refused::UnderWay(busy))) if busy == id), "{busy:?}");
        let (mut row, _) = world.order(2, 2).await;
        row.applied_event = Some(EventId::generate());
        row.applying = Lane::Held(Box::new(Hold::new(HoldState::Conflicting, at(1), None)));
        let order = row.order;
        world.put(row, Vec::new());
        assert_eq!(letters.trial(order, None).await.unwrap().run, DryRun::Contradicts);
    });
}
