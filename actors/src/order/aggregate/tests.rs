//! The rules of the contract, one test each, and the whole table of statuses and commands.

use std::sync::Arc;

use super::{Cancellation, Order, Payment, Shipment, Status, decide, evolve};
use crate::money::{AMOUNT_MAX, Amount, Currency};
use crate::order::command::{Command, CommandKind, TOTAL_RULE};
use crate::order::error::Refusal;
use crate::order::event::{Created, EventKind, OrderEvent, Personal};
use crate::order::given_when_then::*;
use crate::order::{OrderId, Version};

const OLD_ORDER: &str = r#"{"orderId":"o-1","userId":7,"total":12.50}"#;

/// Two lines, 12,490 together.
fn placed_events() -> Vec<OrderEvent> {
    vec![created(&[line("A-1", 2, 4995), line("B-1", 1, 2500)])]
}

fn placed_and(events: &[OrderEvent]) -> Vec<OrderEvent> {
    [placed_events().as_slice(), events].concat()
}

fn events_to(status: Status) -> Vec<OrderEvent> {
    match status {
        Status::Placed => placed_events(),
        Status::Paid => placed_and(&[paid(12_490)]),
        Status::Shipped => placed_and(&[paid(12_490), shipped()]),
        Status::Delivered => placed_and(&[paid(12_490), shipped(), delivered()]),
        Status::Cancelled => placed_and(&[cancelled()]),
        Status::Refunded => placed_and(&[paid(12_490), shipped(), refunded(12_490, "broken")]),
    }
}

fn command_of(kind: CommandKind) -> Command {
    match kind {
        CommandKind::Create => Command::Create(create(&[item("A-1", 1, 1)])),
        CommandKind::AddItem => Command::AddItem(item("C-1", 1, 100)),
        CommandKind::RemoveItem => remove("B-1"),
        CommandKind::Pay => pay(12_490),
        CommandKind::Ship => ship(),
        CommandKind::Deliver => Command::Deliver,
        CommandKind::Cancel => cancel(),
        CommandKind::Refund => refund(None),
        CommandKind::Import => import(OLD_ORDER),
    }
}

/// The contract: what a status allows, with the events and the status that come of it.
fn contract(status: Status) -> &'static [(CommandKind, &'static [EventKind], Status)] {
    match status {
        Status::Placed => &[
            (CommandKind::AddItem, &[EventKind::ItemAdded], Status::Placed),
            (CommandKind::RemoveItem, &[EventKind::ItemRemoved], Status::Placed),
            (CommandKind::Pay, &[EventKind::Paid], Status::Paid),
            (CommandKind::Cancel, &[EventKind::Cancelled], Status::Cancelled),
        ],
        Status::Paid => &[
            (CommandKind::Ship, &[EventKind::Shipped], Status::Shipped),
            (CommandKind::Cancel, &[EventKind::Cancelled, EventKind::Refunded], Status::Cancelled),
        ],
        Status::Shipped => &[
            (CommandKind::Deliver, &[EventKind::Delivered], Status::Delivered),
            (CommandKind::Refund, &[EventKind::Refunded], Status::Refunded),
        ],
        Status::Delivered => &[(CommandKind::Refund, &[EventKind::Refunded], Status::Refunded)],
        Status::Cancelled | Status::Refunded => &[],
    }
}

#[test]
fn every_status_takes_exactly_the_commands_of_the_contract() {
    for status in Status::ALL.iter().copied() {
        let order = given(&events_to(status)).order();
        assert_eq!(order.status, status);
        let allowed: Vec<_> = contract(status).iter().map(|(kind, ..)| kind.name()).collect();
        assert_eq!(order.allowed(), allowed, "{status}");
        for kind in CommandKind::ALL.iter().copied() {
            let outcome = decide(Some(&order), &command_of(kind));
            match contract(status).iter().find(|(allowed, ..)| *allowed == kind) {
                Some((_, expected, next)) => {
                    let events = outcome.unwrap_or_else(|refusal| panic!("{status}, {}: {refusal}", kind.name()));
                    let kinds: Vec<_> = events.iter().map(OrderEvent::kind).collect();
                    assert_eq!(kinds, *expected, "{status}, {}", kind.name());
                    assert_eq!(given(&[events_to(status), events].concat()).order().status, *next);
                }
                None => match outcome {
                    Err(Refusal::NotAllowed { status: met, allowed: said, detail }) => {
                        assert_eq!((met, &said), (status, &allowed), "{}", kind.name());
                        assert!(!detail.is_empty());
                    }
                    other => panic!("{status}, {}: {other:?}", kind.name()),
                },
            }
        }
    }
}

#[test]
fn an_order_that_is_not_there_can_only_be_created_or_imported() {
    for kind in CommandKind::ALL.iter().copied() {
        let outcome = decide(None, &command_of(kind));
        match kind {
            CommandKind::Create | CommandKind::Import => {
                let kinds: Vec<_> = outcome.expect("a creation").iter().map(OrderEvent::kind).collect();
                assert_eq!(kinds, [EventKind::Created]);
            }
            CommandKind::AddItem
            | CommandKind::RemoveItem
            | CommandKind::Pay
            | CommandKind::Ship
            | CommandKind::Deliver
            | CommandKind::Cancel
            | CommandKind::Refund => assert_eq!(outcome, Err(Refusal::NotFound), "{}", kind.name()),
        }
    }
}

#[test]
fn every_event_follows_only_where_the_contract_has_it() {
    let events = [
        created(&[line("A-1", 1, 1)]),
        OrderEvent::ItemAdded(line("C-1", 1, 1)),
        removed("B-1"),
        paid(12_490),
        shipped(),
        delivered(),
        cancelled(),
        refunded(1, "broken"),
    ];
    assert_eq!(events.each_ref().map(OrderEvent::kind).as_slice(), EventKind::ALL);
    for status in Status::ALL.iter().copied() {
        for event in &events {
            // A refund of an order that was cancelled before it was paid has nothing to give back.
            let possible = contract(status).iter().any(|(_, kinds, _)| kinds.first() == Some(&event.kind()));
            let order = given(&events_to(status)).order();
            let outcome = evolve(Some(order), order_id(), event, moment(9));
            assert_eq!(outcome.is_ok(), possible, "{event:?} when {status}");
        }
    }
    for event in &events {
        let outcome = evolve(None, order_id(), event, moment(1));
        assert_eq!(outcome.is_ok(), event.kind() == EventKind::Created, "{event:?} first");
    }
}

#[test]
fn an_event_that_cannot_follow_says_why() {
    let order = given(&events_to(Status::Paid)).order();
    let error = evolve(Some(order), order_id(), &delivered(), moment(3)).expect_err("not shipped");
    assert_eq!(error.to_string(), "order.delivered cannot follow when the order is paid: the status does not allow it");
    let error = evolve(None, order_id(), &delivered(), moment(1)).expect_err("not created");
    assert!(error.to_string().contains("the order is not there"), "{error}");
}

#[test]
fn damaged_events_are_refused_and_never_panic() {
    let wrong_total = OrderEvent::Created(Created {
        personal: Personal { customer_id: "c-1".to_owned(), email: None },
        reference: None,
        currency: Currency::EUR,
        items: vec![line("A-1", 1, 1)],
        total: amount(2),
    });
    let twice = created(&[line("A-1", 1, 1), line("A-1", 2, 1)]);
    for event in [wrong_total, twice, created(&[])] {
        assert!(evolve(None, order_id(), &event, moment(1)).is_err(), "{event:?}");
    }
    let one = given(&[created(&[line("A-1", u32::MAX, 1)])]).order();
    for event in [
        OrderEvent::ItemAdded(line("A-1", 1, 1)),
        OrderEvent::ItemAdded(line("A-1", 1, 2)),
        OrderEvent::ItemAdded(line("B-1", 1, AMOUNT_MAX)),
        removed("A-1"),
        removed("B-1"),
        paid(1),
    ] {
        assert!(evolve(Some(one.clone()), order_id(), &event, moment(2)).is_err(), "{event:?}");
    }
    let paid = given(&events_to(Status::Shipped)).order();
    for event in [refunded(0, "nothing"), refunded(12_491, "too much")] {
        assert!(evolve(Some(paid.clone()), order_id(), &event, moment(4)).is_err(), "{event:?}");
    }
    let other = OrderId::generate();
    assert!(evolve(Some(paid.clone()), other, &delivered(), moment(4)).is_err());
    let last = Order { version: Version(u32::MAX), ..paid };
    assert!(evolve(Some(last), order_id(), &delivered(), moment(4)).is_err());
}

#[test]
fn a_creation_says_everything_about_the_order() {
    let order =
        given(&[]).when(Command::Create(create(&[item("A-1", 2, 4995)]))).then(&[created(&[line("A-1", 2, 4995)])]);
    let expected = Order {
        id: order_id(),
        status: Status::Placed,
        version: Version(1),
        customer_id: "c-1".to_owned(),
        email: Some("ana@example.com".to_owned()),
        reference: Some("web-77".to_owned()),
        currency: Currency::EUR,
        items: Arc::new(vec![line("A-1", 2, 4995)]),
        total: amount(9990),
        placed_at: moment(1),
        updated_at: moment(1),
        payment: None,
        shipment: None,
        delivered_at: None,
        cancellation: None,
        refunded_total: Amount::ZERO,
    };
    assert_eq!(order, expected);
}

#[test]
fn a_refusal_says_when_it_would_be_possible() {
    given(&events_to(Status::Shipped))
        .when(cancel())
        .not_allowed("the order is shipped; cancel is possible while it is placed or paid", &["deliver", "refund"]);
    given(&events_to(Status::Placed)).when(ship()).not_allowed(
        "the order is placed; ship is possible while it is paid",
        &["add-item", "remove-item", "pay", "cancel"],
    );
}

#[test]
fn a_second_creation_is_not_allowed() {
    let detail = "the order is there already";
    let allowed = ["add-item", "remove-item", "pay", "cancel"];
    given(&placed_events()).when(Command::Create(create(&[item("A-1", 1, 1)]))).not_allowed(detail, &allowed);
    given(&placed_events()).when(import(OLD_ORDER)).not_allowed(detail, &allowed);
}

#[test]
fn a_life_leaves_its_traces() {
    let order = given(&events_to(Status::Delivered)).order();
    assert_eq!(order.version, Version(4));
    assert_eq!((order.placed_at, order.updated_at), (moment(1), moment(4)));
    assert_eq!(order.payment, Some(Payment { paid_at: moment(2), reference: "pay-1".to_owned() }));
    let shipment =
        Shipment { shipped_at: moment(3), carrier: "DHL".to_owned(), tracking_number: "JD014600".to_owned() };
    assert_eq!(order.shipment, Some(shipment));
    assert_eq!(order.delivered_at, Some(moment(4)));
}

#[test]
fn a_new_sku_is_a_new_line_at_the_end() {
    let order = given(&placed_events())
        .when(Command::AddItem(item("C-1", 3, 10)))
        .then(&[OrderEvent::ItemAdded(line("C-1", 3, 10))]);
    assert_eq!(*order.items, [line("A-1", 2, 4995), line("B-1", 1, 2500), line("C-1", 3, 10)]);
    assert_eq!(order.total, amount(12_520));
}

#[test]
fn quantities_of_one_sku_add_up() {
    let order = given(&placed_events())
        .when(Command::AddItem(item("A-1", 3, 4995)))
        .then(&[OrderEvent::ItemAdded(line("A-1", 3, 4995))]);
    assert_eq!(order.line("A-1"), Some(&line("A-1", 5, 4995)));
    assert_eq!(order.total, amount(27_475));
}

#[test]
fn adding_to_a_copy_leaves_the_other_as_it_was() {
    let before = given(&placed_events()).order();
    let after = evolve(Some(before.clone()), order_id(), &OrderEvent::ItemAdded(line("C-1", 1, 1)), moment(2));
    assert_eq!(after.expect("follows").items.len(), 3);
    assert_eq!(before.items.len(), 2);
}

#[test]
fn a_line_has_at_most_a_million() {
    let nearly = [created(&[line("A-1", 999_999, 1)])];
    given(&nearly).when(Command::AddItem(item("A-1", 1, 1))).then(&[OrderEvent::ItemAdded(line("A-1", 1, 1))]);
    given(&nearly)
        .when(Command::AddItem(item("A-1", 2, 1)))
        .invalid("quantity", "the line has 999999, at most 1 more fit");
}

#[test]
fn an_order_has_at_most_a_thousand_lines() {
    let lines: Vec<_> = (0..1_000).map(|n| line(&format!("S-{n}"), 1, 1)).collect();
    given(&[created(&lines[..999])])
        .when(Command::AddItem(item("A-1", 1, 1)))
        .then(&[OrderEvent::ItemAdded(line("A-1", 1, 1))]);
    given(&[created(&lines)])
        .when(Command::AddItem(item("A-1", 1, 1)))
        .invalid("sku", "the order has 1000 lines, there is no room for another");
    given(&[created(&lines)])
        .when(Command::AddItem(item("S-7", 1, 1)))
        .then(&[OrderEvent::ItemAdded(line("S-7", 1, 1))]);
}

#[test]
fn a_sku_at_another_price_is_refused_with_the_price() {
    let refusal = given(&placed_events()).when(Command::AddItem(item("A-1", 1, 4994))).refused();
    assert_eq!(refusal, Refusal::PriceDiffers { sku: "A-1".to_owned(), expected: amount(4995) });
}

#[test]
fn a_total_never_exceeds_what_json_keeps_exact() {
    let nearly = [created(&[line("A-1", 1, AMOUNT_MAX - 1), line("B-1", 1, 1)])];
    given(&nearly).when(Command::AddItem(item("C-1", 1, 1))).invalid("quantity", TOTAL_RULE);
    given(&nearly).when(Command::AddItem(item("C-1", 1_000_000, AMOUNT_MAX))).invalid("quantity", TOTAL_RULE);
    given(&nearly).when(Command::AddItem(item("C-1", 5, 0))).then(&[OrderEvent::ItemAdded(line("C-1", 5, 0))]);
    given(&[]).when(Command::Create(create(&[item("A-1", 2, AMOUNT_MAX)]))).invalid("items", TOTAL_RULE);
    given(&[])
        .when(Command::Create(create(&[item("A-1", 1, AMOUNT_MAX)])))
        .then(&[created(&[line("A-1", 1, AMOUNT_MAX)])]);
}

#[test]
fn a_whole_line_is_removed() {
    let order = given(&placed_events()).when(remove("A-1")).then(&[removed("A-1")]);
    assert_eq!(*order.items, [line("B-1", 1, 2500)]);
    assert_eq!(order.total, amount(2500));
}

#[test]
fn an_unknown_sku_is_not_found_even_when_one_line_is_left() {
    for events in [placed_events(), placed_and(&[removed("B-1")])] {
        let refusal = given(&events).when(remove("Z-9")).refused();
        assert_eq!(refusal, Refusal::UnknownSku { sku: "Z-9".to_owned() });
    }
}

#[test]
fn the_last_line_stays() {
    given(&placed_and(&[removed("B-1")]))
        .when(remove("A-1"))
        .not_allowed("the last line cannot be removed; cancel the order instead", &["add-item", "pay", "cancel"]);
}

#[test]
fn only_the_whole_total_pays() {
    given(&placed_events()).when(pay(12_490)).then(&[paid(12_490)]);
    for wrong in [i64::MIN, -12_490, 0, 12_489, 12_491, AMOUNT_MAX, i64::MAX] {
        let refusal = given(&placed_events()).when(pay(wrong)).refused();
        assert_eq!(refusal, Refusal::AmountDiffers { expected: amount(12_490) });
    }
}

#[test]
fn cancelling_before_the_payment_refunds_nothing() {
    let order = given(&placed_events()).when(cancel()).then(&[cancelled()]);
    assert_eq!((order.status, order.refunded_total), (Status::Cancelled, Amount::ZERO));
    let cancellation = Cancellation { cancelled_at: moment(2), reason: "changed my mind".to_owned() };
    assert_eq!(order.cancellation, Some(cancellation));
}

#[test]
fn cancelling_after_the_payment_refunds_everything_and_stays_cancelled() {
    let order =
        given(&events_to(Status::Paid)).when(cancel()).then(&[cancelled(), refunded(12_490, "changed my mind")]);
    assert_eq!((order.status, order.refunded_total), (Status::Cancelled, amount(12_490)));
    assert_eq!(order.version, Version(4));
}

#[test]
fn cancelling_a_paid_order_of_nothing_writes_only_that() {
    let order = given(&[created(&[line("A-1", 1, 0)]), paid(0)]).when(cancel()).then(&[cancelled()]);
    assert_eq!(order.status, Status::Cancelled);
}

#[test]
fn a_refund_is_of_what_is_left() {
    let order = given(&events_to(Status::Shipped)).when(refund(Some(12_000))).then(&[refunded(12_000, "broken")]);
    assert_eq!((order.status, order.refundable()), (Status::Shipped, amount(490)));

    let partly = [events_to(Status::Shipped), vec![refunded(12_000, "broken")]].concat();
    given(&partly).when(Command::Deliver).then(&[delivered()]);
    let order = given(&partly).when(refund(None)).then(&[refunded(490, "broken")]);
    assert_eq!((order.status, order.refunded_total), (Status::Refunded, amount(12_490)));
    given(&partly).when(refund(Some(491))).invalid("amount", "must be at most 490, which is left");
}

#[test]
fn where_nothing_is_left_nothing_is_refunded() {
    let free = [created(&[line("A-1", 1, 0)]), paid(0), shipped()];
    given(&free).when(refund(None)).not_allowed("nothing is left to refund", &["deliver"]);
    given(&free).when(refund(Some(1))).not_allowed("nothing is left to refund", &["deliver"]);
}

#[test]
fn a_malformed_command_is_invalid_whatever_the_status() {
    given(&events_to(Status::Cancelled))
        .when(refund(Some(0)))
        .invalid("amount", "must be a whole number from 1 to 9007199254740991");
}

#[test]
fn an_import_stands_as_it_stood() {
    let order = given(&[]).when(import(OLD_ORDER));
    let expected = OrderEvent::Created(Created {
        personal: Personal { customer_id: "7".to_owned(), email: None },
        reference: None,
        currency: Currency::EUR,
        items: vec![line("legacy", 1, 1250)],
        total: amount(1250),
    });
    order.then(&[expected]);
}
