"""A backend that takes 2 s, under a deadline of 100 ms."""

import time

from client import FACTS, channel, key, outcome, request, stub, tell

with channel() as connection:
    gate = stub(connection)
    # The connection is made before the clock starts: its handshake is no part of the call.
    first = outcome(gate.RouteRequest.future(request("warm"), metadata=key(), timeout=30))
    began = time.monotonic()
    slow = outcome(gate.RouteRequest.future(request("slow", FACTS["slowServiceId"]), metadata=key(), timeout=0.1))
    took_ms = (time.monotonic() - began) * 1000
    after = outcome(gate.RouteRequest.future(request("after"), metadata=key(), timeout=30))
    tell({"first": first, "slow": slow, "tookMs": took_ms, "after": after})
