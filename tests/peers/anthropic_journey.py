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
tools = [{"name": "add", "description": "Adds two numbers.", "input_schema": {
    "type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["a"],
    "additionalProperties": False}}]
called = client.messages.create(model="chat", max_tokens=100, messages=QUESTION, tools=tools, tool_choice={"type": "any"})
use = called.content[-1]
assert called.stop_reason == "tool_use" and use.type == "tool_use" and use.name == "add" and 0 <= use.input["a"] <= 99, called
with client.messages.stream(model="chat", max_tokens=100, messages=QUESTION, tools=tools,
                            tool_choice={"type": "tool", "name": "add"}) as stream:
    final = stream.get_final_message()
assert final.stop_reason == "tool_use" and list(final.content[-1].input) == ["a"], final
result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "5"}]}
turns = QUESTION + [{"role": "assistant", "content": [use.model_dump(exclude_none=True)]},
                    {"role": "user", "content": [result, {"type": "text", "text": "So?"}]}]
assert client.messages.create(model="chat", max_tokens=8, messages=turns, tools=tools).content
refused(anthropic.BadRequestError, "unsupported", lambda: client.messages.create(
    model="chat", max_tokens=1, messages=QUESTION, tools=[{"type": "web_search_20250305", "name": "web_search"}]))
refused(anthropic.BadRequestError, "context-length-exceeded", lambda: client.messages.create(
    model="chat", max_tokens=1, messages=[{"role": "user", "content": "llama " * 5000}]))
print("journey ok")
