//! Looking through what is held: by the event's type also where nobody wrote that down, and never longer than there is time.

use std::sync::atomic::AtomicU32;

use super::*;

fn of_type(event_type: &str) -> Filter {
    Filter { event_type: Some(event_type.to_owned()), ..Filter::default() }
}

#[test]
fn an_effect_that_the_subscriber_has_given_up_is_found_by_the_type_of_its_event() {
    run(async {
        let world = World::new();
        world.diary.performs_nothing.store(true, Ordering::SeqCst);
        let (child, handle) = world.subscriber();
        let node = Node::root("docket", Arc::clone(&world.clock), Ledger::new("test"), 1);
        let root = Supervisor::new(Strategy::OneForOne, Policy::default()).child(child).start(&node);
        let order = world.store(first(1)).await.order();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let head = world.row(order).performing.hold().unwrap().head.clone().unwrap();
        assert_eq!((head.effect, head.event_type.as_str()), (Some(0), ""), "as the engine writes it down");
        let letters = handle.letters();
        let id = LetterId { order, version: Version(1), effect: Some(0) };
        for filter in [of_type("order.item_added"), Filter::default()] {
            let listed = list(letters, &filter).await;
            let [Entry::Held(letter)] = &listed.entries[..] else { panic!("{listed:?}") };
            assert_eq!((letter.id, letter.event_type.as_deref()), (id, Some("order.item_added")));
        }
        assert_eq!(list(letters, &of_type("order.paid")).await.count, 0);
        assert_eq!(letters.show(id).await.unwrap().letter.event_type.as_deref(), Some("order.item_added"));
        let all = many(of_type("order.item_added"), 1, 100);
        assert_eq!(Letters::try_all(std::slice::from_ref(letters), &all).await.unwrap().effects, 1);
        let discard = letters.discard(id, &decision()).await.unwrap();
        assert_ne!(discard.event_type.as_deref(), Some(""), "what is not known is not said");
        root.handle().end();
        root.await;
    });
}

#[test]
fn what_cannot_be_looked_through_in_time_is_not_half_listed_nor_half_retried() {
    run(async {
        let world = World::new();
        for _ in 0..501 {
            world.held(HoldState::Dead, 1, 1, one_place()).await;
        }
        let letters = [world.letters()];
        let (filter, now) = (Filter::default(), Instant::now());
        let listed = Letters::list(&letters, None, &filter, (None, 10), now).await;
        assert!(matches!(listed, Err(LetterError::TooManyHeld)), "{listed:?}");
        let over = RetryAll { until: now, ..many(filter.clone(), 501, 100) };
        let retried = Letters::retry_all(&letters, &over).await;
        assert!(matches!(retried, Err(LetterError::TooManyHeld)), "{retried:?}");
        let tried = Letters::try_all(&letters, &over).await;
        assert!(matches!(tried, Err(LetterError::TooManyHeld)), "{tried:?}");
        assert_eq!(list(&letters[0], &filter).await.count, 501);
        // One among as many others needs no more time than one alone.
        let few = Filter { states: vec![State::Held(HoldState::Undecodable)], ..filter };
        world.held(HoldState::Undecodable, 1, 1, one_place()).await;
        assert_eq!(Letters::list(&letters, None, &few, (None, 10), now).await.unwrap().count, 1);
    });
}

/// A broker that says nothing, and how often it was asked.
#[derive(Default)]
struct Silent(AtomicU32);

#[async_trait]
impl SetAside for Silent {
    async fn unreadable(&self, _: &str, _: usize) -> Result<Vec<Unreadable>, BrokerError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

#[test]
fn a_broker_that_says_nothing_is_waited_for_once_however_many_subscribers_there_are() {
    run(async {
        let worlds = [World::new(), World::new(), World::new()];
        for world in &worlds {
            world.held(HoldState::Dead, 1, 1, one_place()).await;
        }
        let (letters, silent) = (worlds.each_ref().map(World::letters), Silent::default());
        let asked_at = Instant::now();
        let listed = list_beside(&letters, &silent, &Filter::default()).await;
        assert_eq!((listed.count, listed.trouble.is_some()), (3, true), "the rest is shown");
        assert_eq!(silent.0.load(Ordering::SeqCst), 1);
        assert!(asked_at.elapsed() <= Duration::from_secs(5), "{:?}", asked_at.elapsed());
    });
}

#[test]
fn of_what_waits_behind_an_effect_no_more_is_read_than_is_shown_of_it() {
    run(async {
        let world = World::new();
        let (mut row, events) = world.order(60, 60).await;
        (row.performed, row.effects_waiting) = (Version::NONE, 60);
        let mut hold = Hold::new(HoldState::Dead, at(1), None);
        hold.head = Some(head(&events[0], Some(0)));
        row.performing = Lane::Held(Box::new(hold));
        let id = LetterId { order: row.order, version: Version(1), effect: Some(0) };
        let large: Arc<str> = "x".repeat(1 << 20).into();
        world.put(row, events.iter().map(|event| NewEffect { body: large.clone(), ..effect(event) }).collect());
        let shown = world.letters().show(id).await.unwrap();
        assert!((1..=10).contains(&shown.behind.len()), "{}", shown.behind.len());
        assert_eq!(shown.letter.waiting_behind, 59);
    });
}
