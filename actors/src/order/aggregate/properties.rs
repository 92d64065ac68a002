//! What holds of any sequence of commands.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::commit::Origin;
use crate::event::{Envelope, EventId};
use crate::money::AMOUNT_MAX;
use crate::order::given_when_then::{create, import, moment, order_id};

/// A command, or one that depends on the state it meets.
#[derive(Clone, Debug)]
enum Step {
    Plain(Command),
    PayTotal,
    RefundPart { percent: i64 },
}

impl Step {
    fn command(&self, order: Option<&Order>) -> Command {
        let total = order.map_or(0, |order| order.total.minor_units());
        match self {
            Self::Plain(command) => command.clone(),
            Self::PayTotal => Command::Pay { amount: total, reference: "p".to_owned() },
            Self::RefundPart { percent } => {
                let amount = i128::from(total) * i128::from(*percent) / 100;
                Command::Refund { reason: "r".to_owned(), amount: i64::try_from(amount).ok() }
            }
        }
    }
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => 0..2_000_i64,
        1 => prop_oneof![Just(AMOUNT_MAX), Just(AMOUNT_MAX - 1), Just(AMOUNT_MAX / 2), Just(1_000_000)],
        1 => any::<i64>(),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let quantity = prop_oneof![8 => 1..5_i64, 1 => Just(QUANTITY_MAX), 1 => number()];
    let unit_price = prop_oneof![6 => Just(250), 2 => number()];
    ("[A-D]", quantity, unit_price).prop_map(|(sku, quantity, unit_price)| Item { sku, quantity, unit_price })
}

fn first() -> impl Strategy<Value = Command> {
    let old = prop_oneof![
        Just(import(r#"{"orderId":1,"userId":"u","total":"2.50","more":[1.0,{}]}"#)),
        Just(import(r#"{ "orderId":"x","userId":7,"total":5e0,"items":[{"sku":"A","quantity":2,"price":2.5}] }"#)),
    ];
    prop_oneof![4 => vec(item(), 1..4).prop_map(|items| Command::Create(create(&items))), 1 => old]
}

fn step() -> impl Strategy<Value = Step> {
    let text = || "[a-z]{0,3}";
    prop_oneof![
        1 => first().prop_map(Step::Plain),
        4 => item().prop_map(|item| Step::Plain(Command::AddItem(item))),
        2 => "[A-E]".prop_map(|sku| Step::Plain(Command::RemoveItem { sku })),
        3 => Just(Step::PayTotal),
        1 => (number(), text()).prop_map(|(amount, reference)| Step::Plain(Command::Pay { amount, reference })),
        3 => (text(), text())
            .prop_map(|(carrier, tracking_number)| Step::Plain(Command::Ship { carrier, tracking_number })),
        2 => Just(Step::Plain(Command::Deliver)),
        1 => text().prop_map(|reason| Step::Plain(Command::Cancel { reason })),
        3 => (0..110_i64).prop_map(|percent| Step::RefundPart { percent }),
        1 => (text(), proptest::option::of(number()))
            .prop_map(|(reason, amount)| Step::Plain(Command::Refund { reason, amount })),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    (first(), vec(step(), 0..24)).prop_map(|(first, rest)| {
        let mut steps = vec![Step::Plain(first)];
        steps.extend(rest);
        steps
    })
}

/// As it would be written, sent and read again.
fn envelope(command: &Command, event: &OrderEvent, version: i64) -> Envelope {
    let stored = command.stored_form(EventId::generate(), event).expect("every event can be encoded");
    let envelope = Envelope {
        id: stored.id,
        order: order_id(),
        version: Version(u32::try_from(version).expect("a version")),
        event_type: stored.event_type,
        schema_version: stored.schema_version,
        recorded_at: moment(version),
        origin: Origin::anonymous("c".to_owned(), None),
        data: stored.data,
    };
    let sent = serde_json::to_string(&envelope).expect("every envelope can be encoded");
    serde_json::from_str(&sent).expect("own envelope")
}

fn snapshot_and_back(order: &Order) -> Order {
    let state = serde_json::to_string(order).expect("every order can be encoded");
    serde_json::from_str(&state).expect("own state")
}

fn check(order: &Order, events: &[OrderEvent]) {
    let sum_of = |amount_of: fn(&OrderEvent) -> i64| events.iter().map(amount_of).sum::<i64>();
    let was_paid = sum_of(|event| if let OrderEvent::Paid(paid) = event { paid.amount.minor_units() } else { 0 });
    let was_refunded =
        sum_of(|event| if let OrderEvent::Refunded(refunded) = event { refunded.amount.minor_units() } else { 0 });
    let sum: i128 =
        order.items.iter().map(|line| i128::from(line.quantity) * i128::from(line.unit_price.minor_units())).sum();

    assert_eq!(order.version.0 as usize, events.len(), "the version is the number of events");
    assert_eq!(i128::from(order.total.minor_units()), sum, "the total is the sum of the lines");
    assert!((0..=i128::from(AMOUNT_MAX)).contains(&sum), "money stays in its range");
    assert_eq!(order.refunded_total.minor_units(), was_refunded);
    assert!(was_refunded <= was_paid, "never more is given back than was paid");
    assert!(order.items.iter().all(|line| i64::from(line.quantity) <= QUANTITY_MAX));
    assert!(!order.items.is_empty());
    let all_back = order.shipment.is_some() && was_refunded > 0 && was_refunded == was_paid;
    assert_eq!(order.status == Status::Refunded, all_back, "refunded: shipped, and everything was given back");
    if order.status == Status::Cancelled {
        assert_eq!(was_refunded, was_paid, "who cancels gets everything back");
    }
}

proptest! {
    #[test]
    fn any_sequence_of_commands_keeps_the_rules(steps in steps()) {
        let mut order: Option<Order> = None;
        let mut events = Vec::new();
        let mut envelopes = Vec::new();
        for step in steps {
            let command = step.command(order.as_ref());
            let Ok(decided) = decide(order.as_ref(), &command) else { continue };
            assert!(!decided.is_empty(), "a command that is accepted leaves an event");
            for event in decided {
                let version = i64::try_from(envelopes.len()).expect("few events") + 1;
                order = Some(evolve(order, order_id(), &event, moment(version)).expect("what was decided follows"));
                envelopes.push(envelope(&command, &event, version));
                events.push(event);
            }
            let state = order.as_ref().expect("events make an order");
            check(state, &events);
            let restored = snapshot_and_back(state);
            assert_eq!(&restored, state, "a snapshot is the state");
            order = Some(restored);
        }

        let mut replayed = None;
        for (envelope, event) in envelopes.iter().zip(&events) {
            let read = envelope.decode().expect("what was stored can be read");
            assert_eq!(&read, event, "what is read is what was decided");
            replayed = Some(evolve(replayed, envelope.order, &read, envelope.recorded_at).expect("follows"));
        }
        assert_eq!(replayed, order, "replay gives the same state");
    }

    #[test]
    fn any_event_on_any_state_is_an_order_or_an_error(
        steps in steps(),
        amount in 0..=AMOUNT_MAX,
        line in ("[A-D]", any::<u32>(), 0..=AMOUNT_MAX),
    ) {
        let mut order = None;
        for (n, step) in (1..).zip(steps) {
            for event in decide(order.as_ref(), &step.command(order.as_ref())).unwrap_or_default() {
                order = evolve(order.clone(), order_id(), &event, moment(n)).ok();
            }
            let (sku, quantity, unit_price) = line.clone();
            let (amount, text) = (Amount::try_from(amount).expect("an amount"), String::new());
            let strange = [
                OrderEvent::ItemAdded(Line {
                    sku: sku.clone(),
                    quantity,
                    unit_price: Amount::try_from(unit_price).expect("an amount"),
                }),
                OrderEvent::ItemRemoved(ItemRemoved { sku }),
                OrderEvent::Paid(Paid { amount, payment_reference: text.clone() }),
                OrderEvent::Refunded(Refunded { amount, reason: text }),
            ];
            for event in strange {
                if let Ok(next) = evolve(order.clone(), order_id(), &event, moment(n)) {
                    assert_eq!(total_of(&next.items), Some(next.total));
                    assert!(next.refunded_total <= next.total);
                }
            }
        }
    }
}
