#!/usr/bin/env python3
"""A consumer outside docket: reads every event of every order from a queue of its own and prints one line for each.

    RABBITMQ_URL=amqp://docket:docket@localhost:5672/%2f python3 examples/consumer.py

It needs pika (Debian: python3-pika). What a message holds is described at /asyncapi.json of the callers' address.

The queue outlives this program: what happens while it is away waits in it. An event may come more than once, so this
program remembers which it has had, by order and version, and stores that before it acknowledges. Where it keeps a state
of its own, that belongs into the same transaction.
"""

import json
import os
import sqlite3
import sys
from decimal import Decimal

import pika

EXCHANGE = "orders"
QUEUE = "takings-of-the-shop"
QUEUE_ARGUMENTS = {
    "x-queue-type": "quorum",
    # Of two that run at once the other one waits: each would get a part of an order's events.
    "x-single-active-consumer": True,
    # The broker throws away what it has delivered more often: by default, after a program has crashed twenty times.
    "x-delivery-limit": 1_000_000_000,
}
PREFETCH = 100

# What the data of each type is in the newest schema that this program knows.
SCHEMAS = {"order.created": 2, "order.shipped": 2}


def main():
    store = sqlite3.connect(os.environ.get("CONSUMER_STORE", "consumer.db"))
    store.execute("CREATE TABLE IF NOT EXISTS seen (subject, orderversion, PRIMARY KEY (subject, orderversion))")
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, "topic", durable=True)
    channel.queue_declare(QUEUE, durable=True, arguments=QUEUE_ARGUMENTS)
    channel.queue_bind(QUEUE, EXCHANGE, routing_key="order.#")
    channel.basic_qos(prefetch_count=PREFETCH)
    channel.basic_consume(QUEUE, lambda _, method, __, body: receive(store, channel, method.delivery_tag, body))
    print("waiting for events", file=sys.stderr, flush=True)
    channel.start_consuming()


def receive(store, channel, tag, body):
    """Handles a message, and acknowledges it once what it meant is stored."""
    event = json.loads(body, parse_float=Decimal)
    with store:  # one transaction; rolled back if anything in it fails, and the message comes again
        line = handle(event) if is_new(store, event) else None
    # Only now: a transaction that is rolled back takes no line back, and it would be printed again.
    if line:
        print(line, flush=True)
    channel.basic_ack(tag)


def is_new(store, event):
    """Whether this event was not handled before. Notes that it is now."""
    row = (event["subject"], event["orderversion"])
    return store.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", row).rowcount == 1


def handle(event):
    """What this program is for: the line to print. Types and fields that it does not know are left alone."""
    known = SCHEMAS.get(event["type"], 1)
    if event["schemaversion"] > known:
        raise SystemExit(f"{event['type']} has schema version {event['schemaversion']}, this program knows {known}")
    return f"{event['subject']} {event['orderversion']} {event['type']} {json.dumps(upcast(event))}"


def upcast(event):
    """The data in the newest schema that this program knows."""
    data = event["data"]
    if event["type"] == "order.created" and event["schemaversion"] == 1:
        return {"total": int(Decimal(data["total"]) * 100), "currency": "EUR"}
    if event["type"] == "order.shipped" and event["schemaversion"] == 1:
        return {"personal": {"tracking_number": data["tracking_number"]}, "carrier": data["carrier"]}
    return data


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
