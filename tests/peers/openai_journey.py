#!/usr/bin/env python3
"""A journey with OpenAI's own client: every endpoint that it knows and we serve. Its only argument is the base URL.

The model is the repository's own chat model. Fails with the first thing that is not as it should be; prints `journey ok`.
"""
import io, json, math, sys, wave

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
QUESTION = [{"role": "user", "content": "What is 2 plus 3?"}]


def refused(kind, code, call):
    try:
        call()
    except kind as error:
        assert error.code == code, (error.code, code)
        return error
    raise AssertionError(f"not refused with {code}")


assert "chat" in [model.id for model in client.models.list()]

# Chat, whole and streamed.
whole = client.chat.completions.create(model="chat", messages=QUESTION, temperature=0, user="someone", store=False)
answer = whole.choices[0].message.content
assert whole.choices[0].finish_reason == "stop" and "5" in answer, answer
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
chunks = list(client.chat.completions.create(model="chat", messages=QUESTION, temperature=0, stream=True,
                                             stream_options={"include_usage": True}))
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == answer
assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens

# Several answers, how likely they were, biases, limits.
several = client.chat.completions.create(model="chat", messages=QUESTION, n=3, seed=1)
assert [c.index for c in several.choices] == [0, 1, 2]
likely = client.chat.completions.create(model="chat", messages=QUESTION, temperature=0, logprobs=True, top_logprobs=3)
tokens = likely.choices[0].logprobs.content
assert len(tokens) >= 2 and all(t.logprob <= 0 and len(t.top_logprobs) == 3 for t in tokens)
assert all(abs(t.logprob - t.top_logprobs[0].logprob) < 1e-5 for t in tokens), "greedy takes the likeliest"
short = client.chat.completions.create(model="chat", messages=QUESTION, temperature=0, max_completion_tokens=1)
assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 1
stopped = client.chat.completions.create(model="chat", messages=QUESTION, temperature=0, stop=["5"])
assert stopped.choices[0].finish_reason == "stop" and "5" not in stopped.choices[0].message.content

# What an answer must look like.
schema = {"type": "object", "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 99}, "sure": {"type": "boolean"}},
          "required": ["sum", "sure"], "additionalProperties": False}
shaped = client.chat.completions.create(
    model="chat", messages=QUESTION, temperature=0,
    response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}})
value = json.loads(shaped.choices[0].message.content)
assert set(value) == {"sum", "sure"} and 0 <= value["sum"] <= 99 and isinstance(value["sure"], bool), value
grammar = client.chat.completions.create(model="chat", messages=QUESTION, extra_body={"grammar": 'root ::= "yes" | "no"'})
assert grammar.choices[0].message.content in ("yes", "no"), grammar.choices[0].message.content

# Responses: the same answer in the newer shape.
response = client.responses.create(model="chat", input="What is 2 plus 3?", temperature=0)
assert response.status == "completed" and response.output_text == answer, response
turns = [{"role": "user", "content": [{"type": "input_text", "text": "What is 2 plus 3?"}]}]
events = list(client.responses.create(model="chat", input=turns, temperature=0, stream=True))
assert [e.sequence_number for e in events] == list(range(len(events)))
assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == answer
assert events[0].type == "response.created" and events[-1].type == "response.completed"
assert events[-1].response.output_text == answer and events[-1].response.usage.output_tokens > 1
few = client.responses.create(model="chat", input="What is 2 plus 3?", temperature=0, max_output_tokens=1)
assert few.status == "incomplete" and few.incomplete_details.reason == "max_output_tokens"
formed = client.responses.create(model="chat", input="What is 2 plus 3?", temperature=0, instructions="Be brief.",
                                 text={"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}})
assert set(json.loads(formed.output_text)) == {"sum", "sure"}
refused(openai.BadRequestError, "unsupported",
        lambda: client.responses.create(model="chat", input="a", previous_response_id="resp_1"))

# Functions: a tiny model that never heard of them calls rightly when it must, because it can do nothing else.
number = {"type": "integer", "minimum": 0, "maximum": 99}
add = {"name": "add", "description": "Adds two numbers.", "parameters": {
    "type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"], "additionalProperties": False}}
paint = {"name": "paint", "parameters": {
    "type": "object", "properties": {"colour": {"$ref": "#/$defs/c"}}, "required": ["colour"], "additionalProperties": False,
    "$defs": {"c": {"enum": ["red", "blue"]}}}}
tools = [{"type": "function", "function": function} for function in (add, paint)]
called = client.chat.completions.create(model="chat", messages=QUESTION, temperature=0, tools=tools, tool_choice="required")
assert called.choices[0].finish_reason == "tool_calls" and called.choices[0].message.content is None, called
call = called.choices[0].message.tool_calls[0]
arguments = json.loads(call.function.arguments)
assert call.type == "function" and set(arguments) == ({"a", "b"} if call.function.name == "add" else {"colour"}), call
named = {"type": "function", "function": {"name": "paint"}}
chunks = list(client.chat.completions.create(model="chat", messages=QUESTION, tools=tools, tool_choice=named, stream=True))
deltas = [d for c in chunks for d in c.choices[0].delta.tool_calls or []]
assert deltas[0].id and deltas[0].function.name == "paint" and all(d.index == 0 for d in deltas)
assert json.loads("".join(d.function.arguments for d in deltas))["colour"] in ("red", "blue")
assert len(deltas) > 3 and chunks[-1].choices[0].finish_reason == "tool_calls"
turns = QUESTION + [called.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "5"}]
told = client.chat.completions.create(model="chat", messages=turns, tools=tools, temperature=0, max_tokens=8)
assert told.usage.prompt_tokens > called.usage.prompt_tokens
without = client.chat.completions.create(model="chat", messages=QUESTION, tools=tools, tool_choice="none", temperature=0)
assert without.choices[0].message.content == answer
flat = [{"type": "function", **add}]
response = client.responses.create(model="chat", input="What is 2 plus 3?", tools=flat, tool_choice="required")
item = response.output[-1]
assert item.type == "function_call" and set(json.loads(item.arguments)) == {"a", "b"}, response
items = [{"role": "user", "content": "What is 2 plus 3?"}, item.model_dump(exclude_none=True),
         {"type": "function_call_output", "call_id": item.call_id, "output": "5"}]
assert client.responses.create(model="chat", input=items, tools=flat, max_output_tokens=8).output
events = list(client.responses.create(model="chat", input="Add.", tools=flat, tool_choice="required", stream=True))
assert "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta") == \
    events[-1].response.output[-1].arguments
refused(openai.BadRequestError, "invalid-input", lambda: client.chat.completions.create(
    model="chat", messages=QUESTION, tools=tools, tool_choice={"type": "function", "function": {"name": "fly"}}))
refused(openai.BadRequestError, "invalid-input", lambda: client.chat.completions.create(
    model="chat", messages=QUESTION, tool_choice="required", tools=[{"type": "function", "function": {
        "name": "t", "strict": True, "parameters": {"type": "object", "properties": {"x": {"type": "nothing"}}}}}]))

# Completions.
text = client.completions.create(model="chat", prompt=["A llama", "The sky"], max_tokens=4, temperature=0, echo=True, logprobs=2)
assert [c.text.startswith(p) for c, p in zip(text.choices, ["A llama", "The sky"])] == [True, True]
assert len(text.choices[0].logprobs.tokens) == len(text.choices[0].logprobs.token_logprobs) > 0
streamed = list(client.completions.create(model="chat", prompt="A llama", max_tokens=4, temperature=0, stream=True))
assert "A llama" + "".join(c.choices[0].text for c in streamed) == text.choices[0].text
refused(openai.BadRequestError, "unsupported", lambda: client.completions.create(model="chat", prompt="a", suffix="b"))

# Several answers in one stream are those of the whole answer, each in its order.
def told(stream, text):
    texts, reasons, usage = {}, {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (text(choice) or "")
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    return [texts[i] for i in sorted(texts)], [reasons[i] for i in sorted(texts)], usage

many = dict(model="chat", messages=[{"role": "user", "content": "Tell me a story."}], n=3, seed=5, temperature=2, max_tokens=12)
whole = client.chat.completions.create(**many)
texts, reasons, usage = told(
    client.chat.completions.create(**many, stream=True, stream_options={"include_usage": True}), lambda c: c.delta.content)
assert texts == [c.message.content for c in whole.choices] and reasons == [c.finish_reason for c in whole.choices]
assert len(set(texts)) > 1, texts
assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
many = dict(model="chat", prompt=["A llama", "The sky"], n=2, seed=5, temperature=1.5, max_tokens=6, echo=True)
whole = client.completions.create(**many)
texts, reasons, usage = told(
    client.completions.create(**many, stream=True, stream_options={"include_usage": True}), lambda c: c.text)
assert texts == [c.text for c in whole.choices] and reasons == [c.finish_reason for c in whole.choices]
assert [t[:7] for t in texts] == ["A llama"] * 2 + ["The sky"] * 2 and len(set(texts)) > 2, texts
assert usage.prompt_tokens == whole.usage.prompt_tokens and usage.completion_tokens == whole.usage.completion_tokens
refused(openai.BadRequestError, "invalid-input", lambda: client.completions.create(model="chat", prompt="a", n=17))

# Embeddings: the client asks for base64 unless told otherwise.
vectors = client.embeddings.create(model="chat", input=["a llama", "a pajama"])
assert len(vectors.data) == 2 and abs(math.hypot(*vectors.data[0].embedding) - 1) < 1e-4
plain = client.embeddings.create(model="chat", input="a llama", encoding_format="float")
assert max(abs(a - b) for a, b in zip(plain.data[0].embedding, vectors.data[0].embedding)) < 1e-3
few = client.embeddings.create(model="chat", input="a llama", dimensions=8)
assert len(few.data[0].embedding) == 8 and abs(math.hypot(*few.data[0].embedding) - 1) < 1e-4

# Refusals are exceptions of the right kind.
refused(openai.NotFoundError, "model-not-found", lambda: client.chat.completions.create(model="nobody", messages=QUESTION))
refused(openai.BadRequestError, "invalid-input", lambda: client.chat.completions.create(model="chat", messages=[]))
refused(openai.BadRequestError, "invalid-input",
        lambda: client.chat.completions.create(model="chat", messages=QUESTION, temperature="hot"))
refused(openai.BadRequestError, "context-length-exceeded",
        lambda: client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "llama " * 5000}]))
refused(openai.BadRequestError, "invalid-input",
        lambda: client.chat.completions.create(model="chat", messages=QUESTION, extra_body={"grammar": "root ::= ("}))
# Speech. The model says what it was told to say: see listener.py.
sound = io.BytesIO()
with wave.open(sound, "wb") as file:
    file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
    file.writeframes(b"".join(int(12000 * math.sin(n / 6) + 12000 * math.sin(n / 2)).to_bytes(2, "little", signed=True) for n in range(16000 * 31)))
recording = ("speech.wav", sound.getvalue())
heard = client.audio.transcriptions.create(model="listener", file=recording)
assert heard.text == "hello world. hello world." and heard.usage.seconds == 31, heard
verbose = client.audio.transcriptions.create(model="listener", file=recording, response_format="verbose_json", timestamp_granularities=["segment"])
assert verbose.language == "english" and verbose.duration == 31 and [s.start for s in verbose.segments] == [0, 30], verbose
assert client.audio.transcriptions.create(model="listener", file=recording, response_format="text", language="en") == heard.text + "\n"
assert client.audio.transcriptions.create(model="listener", file=recording, response_format="srt").startswith("1\n00:00:00,000 --> 00:00:02,000\n")
assert client.audio.translations.create(model="listener", file=recording).text == "good day. good day."
events = list(client.audio.transcriptions.create(model="listener", file=recording, stream=True))
assert [e.type for e in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"], events
assert "".join(e.delta for e in events[:-1]) == events[-1].text == heard.text and events[-1].usage.output_tokens > 4
refused(openai.BadRequestError, "audio-unsupported", lambda: client.audio.transcriptions.create(model="listener", file=("a.wav", b"no sound at all")))
refused(openai.BadRequestError, "unsupported", lambda: client.audio.transcriptions.create(
    model="listener", file=recording, response_format="verbose_json", timestamp_granularities=["word"]))

# Speech: each sentence as soon as it is spoken; bare samples at the rate that OpenAI's are played with.
spoken = client.audio.speech.create(model="voice", voice="amy", input="Hi.", response_format="wav")
with wave.open(io.BytesIO(spoken.content)) as file:
    assert (file.getframerate(), file.getnchannels(), file.getsampwidth(), file.getnframes()) == (8000, 1, 2, 900), file.getparams()
bare = client.audio.speech.create(model="voice", voice="bob", input="Hi.", response_format="pcm", speed=2)
assert len(bare.content) == 2 * 3 * 450
with client.audio.speech.with_streaming_response.create(model="voice", voice="amy", input="Hi.\n\nHo.", response_format="wav") as streamed:
    pieces = list(streamed.iter_bytes())
assert b"".join(pieces)[44:] != b"" and sum(map(len, pieces)) == 44 + 2 * 1800, [len(piece) for piece in pieces]
with client.audio.speech.with_streaming_response.create(
        model="voice", voice="amy", input="Hi.\n\nHo.", stream_format="sse", response_format="pcm") as streamed:
    events = [json.loads(line[6:]) for line in streamed.iter_lines() if line.startswith("data: ")]
assert [e["type"] for e in events] == ["speech.audio.delta"] * 2 + ["speech.audio.done"], events
refused(openai.BadRequestError, "format-unsupported",
        lambda: client.audio.speech.create(model="voice", voice="amy", input="Hi.", response_format="mp3"))
refused(openai.BadRequestError, "voice-unknown", lambda: client.audio.speech.create(model="voice", voice="alloy", input="Hi."))

print("journey ok")
