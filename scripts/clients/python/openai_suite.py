"""OpenAI's library for Python."""

import json

import openai
from pydantic import BaseModel
from typing import Literal

import harness as h

client = openai.OpenAI(base_url=h.V1, api_key=h.KEY, max_retries=0)
USER = [{"role": "user", "content": h.TEXT}]


def user(text):
    return [{"role": "user", "content": text}]


def function(name, schema):
    return {"type": "function", "function": {"name": name, "description": "The " + name, "parameters": schema}}


TOOLS = [function("get_time", h.TIME_SCHEMA), function("get_weather", h.WEATHER_SCHEMA)]


class City(BaseModel):
    city: Literal["Paris", "Rome", "Oslo"]
    warm: bool


def chat(text=h.TEXT, **options):
    more = h.CALL_TOKENS if "tools" in options else h.FEW_TOKENS
    options = {"max_tokens": more, "temperature": 0} | options
    return client.chat.completions.create(model=h.MODEL, messages=user(text), **options)


def list_models():
    names = [m.id for m in client.models.list()]
    h.check(h.MODEL in names, "the model isn't in the list", names)
    h.equal(client.models.retrieve(h.MODEL).id, h.MODEL, "id")


def whole_reply():
    reply = chat()
    h.check(reply.id.startswith("chatcmpl-"), "id", reply.id)
    choice = reply.choices[0]
    h.equal((len(reply.choices), choice.index, choice.message.role), (1, 0, "assistant"), "choice")
    h.says(choice.message.content, h.TEXT)
    h.check(choice.finish_reason in ("stop", "length"), "finish_reason", choice.finish_reason)
    u = reply.usage
    h.usage_adds_up(u.prompt_tokens, u.completion_tokens, u.total_tokens)
    cut = chat(max_completion_tokens=2)
    h.equal((cut.choices[0].finish_reason, cut.usage.completion_tokens), ("length", 2), "an answer that is cut")


def stream():
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    h.equal(len({c.id for c in chunks}), 1, "ids in a stream")
    h.equal(chunks[0].choices[0].delta.role, "assistant", "role of the first delta")
    h.check(all(c.usage is None for c in chunks[:-1]) and chunks[-1].choices == [], "usage before the last chunk")
    u = chunks[-1].usage
    h.usage_adds_up(u.prompt_tokens, u.completion_tokens, u.total_tokens)
    ends = [c.choices[0].finish_reason for c in chunks[:-1]]
    h.check(ends[-1] in ("stop", "length") and not any(ends[:-1]), "finish_reason in a stream", ends)
    text = "".join(c.choices[0].delta.content or "" for c in chunks[:-1])
    h.equal(text, chat().choices[0].message.content, "the text of the stream and of the whole reply")
    with client.chat.completions.stream(model=h.MODEL, messages=USER, stop=" ", max_tokens=h.FEW_TOKENS, temperature=0) as events:
        first = events.get_final_completion().choices[0].message.content  # the helper refuses an answer that is cut
    h.equal(first, text.split(" ")[0], "the text that the helper put together")


def several():
    reply = chat(n=2, temperature=1, seed=1)
    h.equal([c.index for c in reply.choices], [0, 1], "indexes")
    for choice in reply.choices:
        h.says(choice.message.content, h.TEXT)
    texts, ends = {0: "", 1: ""}, {}
    for chunk in chat(n=2, temperature=1, seed=1, stream=True):
        for c in chunk.choices:
            texts[c.index] += c.delta.content or ""
            if c.finish_reason:
                ends[c.index] = c.finish_reason
    h.equal(texts, {c.index: c.message.content for c in reply.choices}, "texts of the stream and of the whole reply")
    h.equal(sorted(ends), [0, 1], "choices that ended")


def stop():
    whole = chat().choices[0].message.content
    word = "capital" if h.MOCK else whole.split()[2]
    reply = chat(stop=[word])
    h.equal(reply.choices[0].message.content, whole[: whole.index(word)], "the text before the stop string")
    h.equal(reply.choices[0].finish_reason, "stop", "finish_reason")


def seed():
    texts = [chat(temperature=1, seed=11).choices[0].message.content for _ in range(2)]
    h.equal(texts[0], texts[1], "texts with one seed")
    if not h.MOCK:
        others = {chat(temperature=1.5, seed=s).choices[0].message.content for s in (1, 2, 3)}
        h.check(len(others) > 1, "three seeds gave one text", others)


def logprobs():
    reply = chat(logprobs=True, top_logprobs=2)
    tokens = reply.choices[0].logprobs.content
    h.equal("".join(t.token for t in tokens), reply.choices[0].message.content, "the tokens put together")
    for t in tokens:
        h.check(t.logprob <= 0 and len(t.top_logprobs) == 2, "log-probabilities of a token", t)
        h.equal(t.top_logprobs[0].token, t.token, "the most likely token at temperature 0")
    streamed = [t.token for c in chat(logprobs=True, top_logprobs=2, stream=True) if c.choices and c.choices[0].logprobs
                for t in c.choices[0].logprobs.content]
    h.equal(streamed, [t.token for t in tokens], "tokens of the stream and of the whole reply")


def schema():
    reply = chat(h.ASK_CITY, response_format={
        "type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": h.CITY_SCHEMA}}, max_tokens=h.CALL_TOKENS)
    h.is_city(reply.choices[0].message.content)
    parsed = client.chat.completions.parse(model=h.MODEL, messages=user(h.ASK_CITY), response_format=City, max_tokens=h.CALL_TOKENS, temperature=0)
    h.check(isinstance(parsed.choices[0].message.parsed, City), "not the client's type", parsed)
    loose = chat(h.ASK_CITY, response_format={"type": "json_object"})
    if loose.choices[0].finish_reason == "stop":
        h.check(isinstance(json.loads(loose.choices[0].message.content), dict), "no JSON object", loose)


def reasoning():
    message = chat("think why not\nyes").choices[0].message
    h.equal((message.reasoning_content, message.content), ("why not", "yes"), "reasoning and text")
    deltas = [c.choices[0].delta for c in chat("think why not\nyes", stream=True)]
    h.equal("".join(getattr(d, "reasoning_content", None) or "" for d in deltas), "why not", "reasoning of the stream")
    h.equal("".join(d.content or "" for d in deltas), "yes", "text of the stream")


def only_call(reply, name="get_weather"):
    choice = reply.choices[0]
    h.equal(choice.finish_reason, "tool_calls", "finish_reason")
    h.equal([c.function.name for c in choice.message.tool_calls], [name], "calls")
    call = choice.message.tool_calls[0]
    h.check(call.type == "function" and call.id, "type and id of the call", call)
    return call


def tools_auto():
    reply = chat(h.CALL_PARIS, tools=TOOLS)
    if h.MOCK or reply.choices[0].finish_reason == "tool_calls":
        for call in reply.choices[0].message.tool_calls:
            if call.function.name == "get_weather":
                h.is_weather(call.function.arguments)
    none = chat(h.CALL_PARIS, tools=TOOLS, tool_choice="none")
    h.check(not none.choices[0].message.tool_calls, "a call although tool_choice is none", none)
    plain = chat(tools=TOOLS)
    if h.MOCK:
        h.says(plain.choices[0].message.content, h.TEXT)


def tools_required():
    call = only_call(chat("How is the weather in Paris?", tools=TOOLS[1:], tool_choice="required", parallel_tool_calls=False))
    h.is_weather(call.function.arguments, known=False)


def tools_named():
    named = {"type": "function", "function": {"name": "get_weather"}}
    h.is_weather(only_call(chat("How is it?", tools=TOOLS, tool_choice=named)).function.arguments, known=False)
    h.is_weather(only_call(chat(h.CALL_TWO, tools=TOOLS, tool_choice=named)).function.arguments)
    allowed = {"type": "allowed_tools", "allowed_tools": {
        "mode": "required", "tools": [{"type": "function", "function": {"name": "get_time"}}]}}
    h.equal(json.loads(only_call(chat("How is it?", tools=TOOLS, tool_choice=allowed, parallel_tool_calls=False), "get_time").function.arguments), {}, "arguments")


def tools_stream():
    chunks = list(chat(h.CALL_PARIS, tools=TOOLS[1:], tool_choice="required", parallel_tool_calls=False, stream=True))
    pieces = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or []]
    h.check(pieces[0].id and pieces[0].function.name == "get_weather" and pieces[0].type == "function", "first piece", pieces[0])
    h.check(not any(p.id or p.function.name for p in pieces[1:]), "a second id or name", pieces)
    h.is_weather("".join(p.function.arguments or "" for p in pieces))
    h.equal(chunks[-1].choices[0].finish_reason, "tool_calls", "finish_reason")
    with client.chat.completions.stream(
            model=h.MODEL, messages=user("call city " + h.CITY_JSON), tools=[openai.pydantic_function_tool(City, name="city")],
            tool_choice="required", parallel_tool_calls=False, max_tokens=h.CALL_TOKENS) as events:
        kinds = [e.type for e in events]
    h.check("tool_calls.function.arguments.done" in kinds, "events of the client's helper", kinds)


def tools_parallel():
    if not h.MOCK:
        choice = chat(h.ASK_TWO, tools=TOOLS[1:], tool_choice="required").choices[0]
        calls = choice.message.tool_calls or []
        h.weather_calls([(c.id, c.function.name, c.function.arguments) for c in calls], choice.finish_reason == "length")
        return
    calls = chat(h.CALL_TWO, tools=TOOLS).choices[0].message.tool_calls
    h.equal(len({c.id for c in calls}), len(calls), "different ids")
    h.equal([json.loads(c.function.arguments)["city"] for c in calls], ["Paris", "Rome"], "cities")
    pieces = [c for chunk in chat(h.CALL_TWO, tools=TOOLS, stream=True) for c in chunk.choices[0].delta.tool_calls or []]
    texts = {i: "".join(p.function.arguments or "" for p in pieces if p.index == i) for i in (0, 1)}
    h.equal(texts, {0: '{"city":"Paris"}', 1: '{"city":"Rome"}'}, "arguments by index")
    h.equal(len(chat(h.CALL_TWO, tools=TOOLS, parallel_tool_calls=False).choices[0].message.tool_calls), 1, "calls when not parallel")


def tool_loop():
    messages = user(h.CALL_PARIS)
    choice = client.chat.completions.create(
        model=h.MODEL, messages=messages, tools=TOOLS[1:], tool_choice="required", parallel_tool_calls=False, temperature=0).choices[0]
    call = choice.message.tool_calls[0]
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "It rains."}]
    reply = client.chat.completions.create(
        model=h.MODEL, messages=messages, tools=TOOLS[1:], tool_choice="none", max_tokens=h.FEW_TOKENS, temperature=0)
    h.says(reply.choices[0].message.content, "It rains.")


def completions():
    reply = client.completions.create(model=h.MODEL, prompt=["one two", "three"], max_tokens=8, temperature=0, logprobs=2)
    h.equal([c.index for c in reply.choices], [0, 1], "indexes")
    if h.MOCK:
        h.equal([c.text for c in reply.choices], ["one two", "three"], "texts")
    first = reply.choices[0]
    h.equal("".join(first.logprobs.tokens), first.text, "the tokens put together")
    h.check(all(p <= 0 for p in first.logprobs.token_logprobs), "log-probabilities", first.logprobs)
    chunks = list(client.completions.create(model=h.MODEL, prompt="one two", max_tokens=8, temperature=0, stream=True))
    h.equal("".join(c.choices[0].text for c in chunks), first.text, "the text of the stream and of the whole reply")


def count():
    n = client.responses.input_tokens.count(model=h.MODEL, input=h.TEXT).input_tokens
    h.equal(n, chat().usage.prompt_tokens, "the prompt's tokens")


def embeddings():
    texts = ["What is the capital of France?", "one", "two three"]
    many = client.embeddings.create(model=h.MODEL, input=texts)  # the client asks for base64
    h.equal([d.index for d in many.data], [0, 1, 2], "indexes")
    size = len(many.data[0].embedding)
    h.check(size > 1 and all(len(d.embedding) == size for d in many.data), "sizes", size)
    h.check(many.usage.prompt_tokens > 0, "usage", many.usage)
    for data in many.data:
        h.check(abs(sum(x * x for x in data.embedding) - 1) < 1e-3, "the length of a vector isn't 1", data.index)
    plain = client.embeddings.create(model=h.MODEL, input=texts[1], encoding_format="float").data[0].embedding
    h.check(all(abs(a - b) < 1e-4 for a, b in zip(plain, many.data[1].embedding)), "as numbers and in base64")


def responses():
    reply = client.responses.create(model=h.MODEL, input=h.TEXT, max_output_tokens=h.FEW_TOKENS, temperature=0, store=False)
    h.says(reply.output_text, h.TEXT)
    h.check(reply.status in ("completed", "incomplete") and reply.output[0].role == "assistant", "status and role", reply)
    u = reply.usage
    h.usage_adds_up(u.input_tokens, u.output_tokens, u.total_tokens)
    parsed = client.responses.parse(model=h.MODEL, input=h.ASK_CITY, text_format=City, max_output_tokens=h.CALL_TOKENS,
                                     temperature=0, store=False)
    h.check(isinstance(parsed.output_parsed, City), "not the client's type", parsed)


def responses_stream():
    events = list(client.responses.create(
        model=h.MODEL, input=h.TEXT, max_output_tokens=h.FEW_TOKENS, temperature=0, store=False, stream=True))
    kinds = [e.type for e in events]
    h.equal(kinds[0], "response.created", "the first event")
    h.check(kinds[-1] in ("response.completed", "response.incomplete"), "the last event", kinds[-1])
    h.equal([e.sequence_number for e in events], list(range(len(events))), "sequence numbers")
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    h.says(text, h.TEXT)
    h.equal(events[-1].response.output_text, text, "the text of the last event")


def responses_tools():
    tools = [{"type": "function", "name": "get_weather", "parameters": h.WEATHER_SCHEMA, "strict": True}]
    asked = [{"role": "user", "content": h.CALL_PARIS}]
    reply = client.responses.create(model=h.MODEL, input=asked, tools=tools, tool_choice="required", parallel_tool_calls=False, store=False)
    calls = [o for o in reply.output if o.type == "function_call"]
    h.equal([c.name for c in calls], ["get_weather"], "calls")
    h.is_weather(calls[0].arguments)
    result = {"type": "function_call_output", "call_id": calls[0].call_id, "output": "It rains."}
    reply = client.responses.create(model=h.MODEL, input=asked + reply.output + [result], tools=tools, tool_choice="none",
                                    max_output_tokens=h.FEW_TOKENS, store=False)
    h.says(reply.output_text, "It rains.")


def with_key(key):
    return client.with_options(api_key=key).chat.completions.create


def errors():
    def create(key=h.KEY, **options):
        return lambda: with_key(key)(**({"model": h.MODEL, "messages": USER, "max_tokens": 2} | options))

    h.raises(openai.AuthenticationError, create(h.WRONG_KEY), 401)
    h.raises(openai.PermissionDeniedError, create(h.OTHER_KEY), 403)
    e = h.raises(openai.NotFoundError, create(model="no-such-model"), 404, "no-such-model")
    h.equal(e.code, "model_not_found", "code")
    e = h.raises(openai.BadRequestError, create(temperature=9), 400, "temperature")
    h.equal((e.param, e.type), ("temperature", "invalid_request_error"), "param and type")
    e = h.raises(openai.BadRequestError, create(messages=user("word " * 20000)), 400, "maximum context length")
    h.equal(e.code, "context_length_exceeded", "code")
    h.raises(openai.BadRequestError, create(temperature=9, stream=True), 400)

    def until_limited():
        for _ in range(3):
            create(h.LIMITED_KEY)()

    e = h.raises(openai.RateLimitError, until_limited, 429)
    h.check(int(e.response.headers["retry-after"]) > 0, "Retry-After", e.response.headers)


def cancel_stream():
    before = h.cancelled()
    with chat(h.LONG, max_tokens=h.LONG_TOKENS, stream=True) as chunks:
        for chunk in chunks:
            if chunk.choices[0].delta.content:
                break
    h.one_more_cancelled(before)


def cancel_reply():
    before = h.cancelled()
    h.raises(openai.APITimeoutError, lambda: client.with_options(timeout=0.5).chat.completions.create(
        model=h.MODEL, messages=user(h.LONG), max_tokens=h.LONG_TOKENS))
    h.one_more_cancelled(before)


h.run("openai-python", openai.__version__, {
    "list": list_models, "chat": whole_reply, "stream": stream, "n": several, "stop": stop, "seed": seed,
    "logprobs": logprobs, "schema": schema, "reasoning": h.mock_only(reasoning, h.NO_REASONING), "tools_auto": tools_auto,
    "tools_required": tools_required, "tools_named": tools_named, "tools_stream": tools_stream,
    "tools_parallel": tools_parallel, "tool_loop": tool_loop, "completions": completions,
    "count": count, "embeddings": embeddings, "responses": responses,
    "responses_stream": responses_stream, "responses_tools": responses_tools, "errors": errors,
    "cancel_stream": cancel_stream, "cancel_reply": cancel_reply,
})
