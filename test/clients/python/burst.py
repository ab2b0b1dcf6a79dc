"""Many calls at once on one channel: burst.py <which key> <how many>."""

import sys
import time

from client import PATIENCE_S, channel, key, outcome, request, stub, tell

WHICH, TIMES = sys.argv[1], int(sys.argv[2])

with channel() as connection:
    gate = stub(connection)
    began = time.monotonic()
    calls = [
        gate.RouteRequest.future(request(f"call {n}"), metadata=key(WHICH), timeout=PATIENCE_S) for n in range(TIMES)
    ]
    outcomes = [outcome(call) for call in calls]
    tell({"outcomes": outcomes, "tookMs": (time.monotonic() - began) * 1000})
