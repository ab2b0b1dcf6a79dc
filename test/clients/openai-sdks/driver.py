"""Takes steps through OpenAI's SDK, unchanged but for base URL and key, and prints what came of each."""

import json
import os
import sys

import openai


def take(step):
    options = {"max_retries": step["maxRetries"]} if "maxRetries" in step else {}
    headers = step.get("headers")
    with openai.OpenAI(base_url=os.environ["BASE_URL"], api_key=step["key"], **options) as client:
        try:
            if step["do"] == "stream":
                return stream(client, step["body"], headers)
            return answer(METHODS[step["do"]](client)(**step.get("body", {}), extra_headers=headers))
        except openai.APIError as error:
            return {"error": describe(error)}


METHODS = {
    "chat": lambda client: client.chat.completions.with_raw_response.create,
    "completion": lambda client: client.completions.with_raw_response.create,
    "embedding": lambda client: client.embeddings.with_raw_response.create,
    "models": lambda client: client.models.with_raw_response.list,
    "model": lambda client: client.models.with_raw_response.retrieve,
}


def answer(raw):
    return {"answer": raw.parse().model_dump(mode="json"), "headers": dict(raw.headers)}


def stream(client, body, headers):
    chunks = []
    try:
        for chunk in client.chat.completions.create(**body, stream=True, extra_headers=headers):
            chunks.append(chunk.model_dump(mode="json"))
    except openai.APIError as error:
        return {"chunks": chunks, "error": describe(error)}
    return {"chunks": chunks}


def describe(error):
    response = getattr(error, "response", None)
    return {
        "name": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "requestId": getattr(error, "request_id", None),
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
        "headers": {} if response is None else dict(response.headers),
    }


json.dump([take(step) for step in json.loads(os.environ["STEPS"])], sys.stdout)
