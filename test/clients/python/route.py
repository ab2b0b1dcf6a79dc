"""Both RPCs of the reference, plain and compressed, with and without naming the consumer."""

import grpc

from client import FACTS, PATIENCE_S, answer, channel, key, pb, quota, request, stub, tell

with channel() as connection:
    gate = stub(connection)
    asked = pb.CheckQuotaRequest(consumer_id=FACTS["consumerId"], service_id=FACTS["serviceId"])
    before = gate.CheckQuota(asked, metadata=key(), timeout=PATIENCE_S)
    plain = gate.RouteRequest(request("plain", consumer=FACTS["consumerId"]), metadata=key(), timeout=PATIENCE_S)
    packed = gate.RouteRequest(
        request("packed", size=20_000), metadata=key(), timeout=PATIENCE_S, compression=grpc.Compression.Gzip
    )
    after = gate.CheckQuota(asked, metadata=key(), timeout=PATIENCE_S)
    tell({"before": quota(before), "plain": answer(plain), "packed": answer(packed), "after": quota(after)})
