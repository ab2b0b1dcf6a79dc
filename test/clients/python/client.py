"""What every scenario needs: one channel, a stub made from the reference's proto, and errors as plain data."""

import json
import os
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import marketplace_pb2 as pb
import marketplace_pb2_grpc as pb_grpc

FACTS = json.loads(os.environ["TOLLGATE_FACTS"])
# A bound for calls that should be answered at once; scenarios about deadlines name their own.
PATIENCE_S = 30


def channel():
    """One connection that no other channel of this process shares."""
    return grpc.insecure_channel(FACTS["grpcAddress"], options=[("grpc.use_local_subchannel_pool", 1)])


def stub(on):
    return pb_grpc.ConsumptionServiceStub(on)


def key(of="key"):
    return [("authorization", "Bearer " + FACTS[of])]


def chat(text, size=0):
    body = {"model": "practice", "max_tokens": 32, "messages": [{"role": "user", "content": text + "x" * size}]}
    return json.dumps(body).encode()


def request(text, service=None, consumer="", size=0):
    return pb.RouteRequestRequest(
        consumer_id=consumer,
        service_id=FACTS["serviceId"] if service is None else service,
        payload=chat(text, size),
        metadata={"scenario": os.path.basename(sys.argv[0])},
    )


def answer(response):
    return {
        "requestId": response.request_id,
        "choices": len(json.loads(response.response_data)["choices"]),
        "inputTokens": response.usage.input_tokens,
        "outputTokens": response.usage.output_tokens,
        "totalTokens": response.usage.total_tokens,
        "amount": response.cost.amount,
        "currency": response.cost.currency,
    }


def quota(response):
    return {"remaining": response.remaining, "limit": response.limit, "resetAt": response.reset_at}


def refusal(error):
    """An RpcError with the details that grpc-status-details-bin carried."""
    told = {"code": error.code().name, "message": error.details(), "headers": text_of(error.initial_metadata())}
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else []:
        for name, kind in DETAILS.items():
            message = kind()
            if detail.Unpack(message):
                told[name] = DESCRIBE[name](message)
    return told


def outcome(call):
    """The answer of a call without a deadline of its own to say, or its refusal."""
    try:
        return {"answer": answer(call.result())}
    except grpc.RpcError as error:
        return {"refusal": refusal(error)}


def tell(what):
    json.dump(what, sys.stdout)


def text_of(metadata):
    return {name: value for name, value in metadata or () if isinstance(value, str)}


DETAILS = {
    "errorInfo": error_details_pb2.ErrorInfo,
    "retryInfo": error_details_pb2.RetryInfo,
    "quotaFailure": error_details_pb2.QuotaFailure,
    "badRequest": error_details_pb2.BadRequest,
}

DESCRIBE = {
    "errorInfo": lambda info: {"reason": info.reason, "domain": info.domain, "metadata": dict(info.metadata)},
    "retryInfo": lambda info: {"retryDelayMs": info.retry_delay.ToTimedelta().total_seconds() * 1000},
    "quotaFailure": lambda failure: [
        {
            "subject": violation.subject,
            "description": violation.description,
            "quotaId": violation.quota_id,
            "quotaValue": violation.quota_value,
        }
        for violation in failure.violations
    ],
    "badRequest": lambda bad: [{"field": v.field, "description": v.description} for v in bad.field_violations],
}
