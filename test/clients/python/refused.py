"""Calls that must not get through, each followed on the same channel by one that must."""

from client import FACTS, PATIENCE_S, channel, key, outcome, request, stub, tell

STRANGER = "00000000-0000-4000-8000-0000000000ff"
LARGE = 8 * 1024 * 1024


def changed(credential):
    return credential[:-1] + ("A" if credential[-1] != "A" else "B")


CASES = {
    "noKey": (request("no key"), []),
    "wrongKey": (request("wrong key"), [("authorization", "Bearer " + changed(FACTS["key"]))]),
    "malformedKey": (request("malformed"), [("authorization", "Bearer nonsense")]),
    "wrongKeyLarge": (request("large", size=LARGE), [("authorization", "Bearer " + changed(FACTS["key"]))]),
    "unknownService": (request("unknown", service=STRANGER), key()),
    "longServiceId": (request("long", service="s" * 20_000), key()),
    "otherConsumer": (request("other", consumer=STRANGER), key()),
    "othersConsumer": (request("others", consumer=FACTS["consumerId"]), key("limitedKey")),
}

with channel() as connection:
    gate = stub(connection)
    told = {}
    for name, (asked, metadata) in CASES.items():
        told[name] = outcome(gate.RouteRequest.future(asked, metadata=metadata, timeout=PATIENCE_S))
        next_call = gate.RouteRequest.future(request("after " + name), metadata=key(), timeout=PATIENCE_S)
        told[name]["next"] = outcome(next_call)
    tell(told)
