"""Messages of 8 MiB, more of them than the connection may hold streams; then the same connection is used again."""

import sys
import time
import urllib.request

import grpc

from client import FACTS, PATIENCE_S, channel, key, outcome, request, stub, tell

TIMES = int(sys.argv[1])


def in_flight():
    with urllib.request.urlopen(FACTS["address"] + "/metrics", timeout=PATIENCE_S) as page:
        lines = page.read().decode().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("http_requests_in_flight "))


with channel() as connection:
    gate = stub(connection)
    states = []
    connection.subscribe(lambda state: states.append(state.name))
    first = outcome(gate.RouteRequest.future(request("before"), metadata=key(), timeout=PATIENCE_S))
    large = request("large", size=8 * 1024 * 1024)
    refused = [outcome(gate.RouteRequest.future(large, metadata=key(), timeout=PATIENCE_S)) for _ in range(TIMES)]
    left = in_flight()
    until = time.monotonic() + PATIENCE_S
    while left != "0" and time.monotonic() < until:
        time.sleep(0.02)
        left = in_flight()
    after = outcome(gate.RouteRequest.future(request("after"), metadata=key(), timeout=PATIENCE_S))
    tell({"first": first, "refused": refused, "inFlight": left, "after": after, "states": states})
