#!/usr/bin/env python3
"""A journey with Anthropic's own client. Its only argument is the base URL.

The model is the repository's own chat model. Fails with the first thing that is not as it should be; prints `journey ok`.
"""
import sys

import anthropic

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0)
QUESTION = [{"role": "user", "content": [{"type": "text", "text": "What is 2 plus 3?"}]}]


def refused(kind, code, call):
    try:
        call()
    except kind as error:
        assert error.body["type"] == "error" and error.body["error"]["code"] == code, error.body
        return
    raise AssertionError(f"not refused with {code}")


whole = client.messages.create(model="chat", max_tokens=40, extra_body={"temperature": 0}, messages=QUESTION)
answer = whole.content[0].text
assert whole.stop_reason == "end_turn" and "5" in answer and whole.usage.output_tokens > 1, whole

with client.messages.stream(model="chat", max_tokens=40, extra_body={"temperature": 0}, messages=QUESTION) as stream:
    pieces = list(stream.text_stream)
    final = stream.get_final_message()
assert "".join(pieces) == answer and final.content[0].text == answer and len(pieces) > 1
assert final.stop_reason == "end_turn" and final.usage.output_tokens == whole.usage.output_tokens

short = client.messages.create(model="chat", max_tokens=1, extra_body={"temperature": 0}, messages=QUESTION)
assert short.stop_reason == "max_tokens" and short.usage.output_tokens == 1
stopped = client.messages.create(model="chat", max_tokens=40, extra_body={"temperature": 0}, messages=QUESTION, stop_sequences=["5"])
assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "5") and "5" not in stopped.content[0].text

counted = client.messages.count_tokens(model="chat", messages=QUESTION)
used = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
assert counted.input_tokens == used, (counted, whole.usage)
longer = client.messages.count_tokens(model="chat", messages=QUESTION, system="Be kind.")
assert longer.input_tokens > counted.input_tokens

refused(anthropic.NotFoundError, "model-not-found",
        lambda: client.messages.create(model="nobody", max_tokens=1, messages=QUESTION))
refused(anthropic.BadRequestError, "invalid-input", lambda: client.messages.create(model="chat", max_tokens=1, messages=[]))
refused(anthropic.BadRequestError, "unsupported", lambda: client.messages.create(
    model="chat", max_tokens=1, messages=QUESTION, tools=[{"name": "t", "input_schema": {"type": "object"}}]))
refused(anthropic.BadRequestError, "context-length-exceeded", lambda: client.messages.create(
    model="chat", max_tokens=1, messages=[{"role": "user", "content": "llama " * 5000}]))
print("journey ok")
