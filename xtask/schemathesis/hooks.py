"""What docket's description cannot say, so that made-up requests get as far as an order: which orders there are, what
they take next and what they cost, which three letters are a currency, and that a made-up If-Match is never right.

Only requests that are meant to be good are changed, and of those three in four: the rest stays as it was made up."""

import itertools
import re

import schemathesis
from schemathesis import GenerationMode

TAKEN_IN = {
    "items": {"placed"},
    "pay": {"placed"},
    "ship": {"paid"},
    "deliver": {"shipped"},
    "cancel": {"placed", "paid"},
    "refund": {"shipped", "delivered"},
}

orders = {}  # the last answer about each order
turn = itertools.count(1)


@schemathesis.hook
def after_call(context, case, response):
    if response.status_code in (200, 201) and "application/json" in response.headers.get("content-type", [""])[0]:
        order = response.json()
        if "status" in order and "id" in order:
            orders[order["id"]] = order


@schemathesis.hook
def before_call(context, case, **kwargs):
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE or next(turn) % 4 == 0:
        return
    case.headers.pop("If-Match", None)
    body = case.body if isinstance(case.body, dict) else {}
    if re.fullmatch("[A-Z]{3}", str(body.get("currency"))):
        body["currency"] = "JPY" if "A" in body["currency"] else "EUR"
    if "id" in (case.path_parameters or {}):
        command = case.operation.path.removeprefix("/orders/{id}/").split("/")[0]
        taking = [order for order in orders.values() if order["status"] in TAKEN_IN.get(command, {order["status"]})]
        if taking:
            order = taking[next(turn) % len(taking)]
            case.path_parameters["id"] = order["id"]
            if command == "pay" and isinstance(body.get("amount"), int):
                body["amount"] = order["total"]
