"""Anthropic's library for Python."""

import json
from typing import Literal

import anthropic
from anthropic import beta_tool
from pydantic import BaseModel

import harness as h

client = anthropic.Anthropic(base_url=h.URL, api_key=h.KEY, max_retries=0)
GREEDY = {"temperature": 0}  # the library has no parameter for it any more


def user(text):
    return [{"role": "user", "content": text}]


TOOLS = [
    {"name": "get_time", "description": "The time", "input_schema": h.TIME_SCHEMA},
    {"name": "get_weather", "description": "The weather of a city", "input_schema": h.WEATHER_SCHEMA},
]
ANY_WEATHER = {"tools": TOOLS[1:], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}


class City(BaseModel):
    city: Literal["Paris", "Rome", "Oslo"]
    warm: bool


def options(text=h.TEXT, **more):
    tokens = h.CALL_TOKENS if {"tools", "output_config"} & set(more) else h.FEW_TOKENS
    return {"model": h.MODEL, "max_tokens": tokens, "messages": user(text), "extra_body": GREEDY} | more


def create(text=h.TEXT, **more):
    return client.messages.create(**options(text, **more))


def text_of(message):
    return "".join(b.text for b in message.content if b.type == "text")


def calls_of(message):
    return [b for b in message.content if b.type == "tool_use"]


def list_models():
    names = [m.id for m in client.models.list()]
    h.check(h.MODEL in names, "the model isn't in the list", names)
    one = client.models.retrieve(h.MODEL)
    h.equal((one.id, one.type, one.display_name), (h.MODEL, "model", h.MODEL), "the model")
    h.check(one.created_at.year >= 2024, "created_at", one)
    h.equal([m.id for m in client.models.list(limit=1)], names, "the list, page by page")


def prompt_tokens(usage):
    return usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)


def whole_reply():
    reply = create(system="You are brief.")
    h.check(reply.id.startswith("msg_"), "id", reply.id)
    h.equal((reply.type, reply.role), ("message", "assistant"), "type and role")
    h.says(text_of(reply), h.TEXT)
    h.check(reply.stop_reason in ("end_turn", "max_tokens"), "stop_reason", reply.stop_reason)
    h.usage_adds_up(prompt_tokens(reply.usage), reply.usage.output_tokens, prompt_tokens(reply.usage) + reply.usage.output_tokens)
    cut = create(max_tokens=2)
    h.equal((cut.stop_reason, cut.usage.output_tokens), ("max_tokens", 2), "an answer that is cut")


def stream():
    with client.messages.stream(**options()) as events:
        text = "".join(events.text_stream)
        final = events.get_final_message()
    whole = create()
    h.equal(text, text_of(whole), "the text of the stream and of the whole reply")
    h.equal((text_of(final), final.stop_reason), (text, whole.stop_reason), "the message that the helper put together")
    h.equal((prompt_tokens(final.usage), final.usage.output_tokens), (prompt_tokens(whole.usage), whole.usage.output_tokens), "usage")
    kinds = [e.type for e in create(stream=True)]
    h.equal(kinds[:2], ["message_start", "content_block_start"], "the first events")
    h.equal(kinds[-3:], ["content_block_stop", "message_delta", "message_stop"], "the last events")


def stop():
    whole = text_of(create())
    word = "capital" if h.MOCK else whole.split()[2]
    reply = create(stop_sequences=[word])
    h.equal(text_of(reply), whole[: whole.index(word)], "the text before the stop string")
    h.equal((reply.stop_reason, reply.stop_sequence), ("stop_sequence", word), "stop_reason and stop_sequence")


def schema():
    reply = create(h.ASK_CITY, output_config={"format": {"type": "json_schema", "schema": h.CITY_SCHEMA}})
    h.is_city(text_of(reply))
    parsed = client.messages.parse(model=h.MODEL, max_tokens=h.CALL_TOKENS, messages=user(h.ASK_CITY), output_format=City,
                                   extra_body=GREEDY)
    h.check(isinstance(parsed.parsed_output, City), "not the client's type", parsed)


def reasoning():
    thinking = {"type": "enabled", "budget_tokens": 1024}
    reply = create("think why not\nyes", max_tokens=2048, thinking=thinking)
    h.equal([b.type for b in reply.content], ["thinking", "text"], "blocks")
    h.equal((reply.content[0].thinking, reply.content[1].text), ("why not", "yes"), "reasoning and text")
    with client.messages.stream(**options("think why not\nyes", max_tokens=2048, thinking=thinking)) as events:
        thought = "".join(e.thinking for e in events if e.type == "thinking")
    h.equal(thought, "why not", "reasoning of the stream")


def only_call(reply, name="get_weather"):
    h.equal(reply.stop_reason, "tool_use", "stop_reason")
    calls = calls_of(reply)
    h.equal([c.name for c in calls], [name], "calls")
    h.check(calls[0].id, "id of the call", calls[0])
    return calls[0]


def tools_auto():
    for call in calls_of(create(h.CALL_PARIS, tools=TOOLS, tool_choice={"type": "auto"})):
        if call.name == "get_weather":
            h.is_weather(call.input)
    if h.MOCK:
        only_call(create(h.CALL_PARIS, tools=TOOLS))
        h.says(text_of(create(tools=TOOLS)), h.TEXT)
    h.equal(calls_of(create(h.CALL_PARIS, tools=TOOLS, tool_choice={"type": "none"})), [], "calls although tool_choice is none")


def tools_required():
    h.is_weather(only_call(create("How is the weather in Paris?", **ANY_WEATHER)).input, known=False)


def tools_named():
    choice = {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
    h.is_weather(only_call(create("How is it?", tools=TOOLS, tool_choice=choice)).input, known=False)


def tools_stream():
    with client.messages.stream(**options(h.CALL_PARIS, **ANY_WEATHER)) as events:
        pieces = [e.partial_json for e in events if e.type == "input_json"]
        final = events.get_final_message()
    h.is_weather("".join(pieces))
    h.is_weather(only_call(final).input)


def tools_parallel():
    if not h.MOCK:
        reply = create(h.ASK_TWO, tools=TOOLS[1:], tool_choice={"type": "any"})
        h.weather_calls([(c.id, c.name, c.input) for c in calls_of(reply)], reply.stop_reason == "max_tokens")
        return
    calls = calls_of(create(h.CALL_TWO, tools=TOOLS))
    h.equal(len({c.id for c in calls}), len(calls), "different ids")
    h.equal([c.input["city"] for c in calls], ["Paris", "Rome"], "cities")
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    h.equal(len(calls_of(create(h.CALL_TWO, tools=TOOLS, tool_choice=choice))), 1, "calls when not parallel")


def tool_loop():
    messages = user(h.CALL_PARIS)
    reply = create(messages=messages, **ANY_WEATHER)
    result = {"type": "tool_result", "tool_use_id": only_call(reply).id, "content": "It rains."}
    messages += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": [result]}]
    h.says(text_of(create(messages=messages, tools=TOOLS, tool_choice={"type": "none"})), "It rains.")

    asked = []

    @beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: its name
        """
        asked.append(city)
        return "The sun shines."

    runner = client.beta.messages.tool_runner(model=h.MODEL, max_tokens=h.CALL_TOKENS, messages=user(h.CALL_PARIS), tools=[get_weather],
                                              max_iterations=3, extra_body=GREEDY)
    last = runner.until_done()
    if h.MOCK:
        h.equal((asked, text_of(last)), (["Paris"], "The sun shines."), "what the tool runner asked, and the end")


def count():
    n = client.messages.count_tokens(model=h.MODEL, messages=user(h.TEXT)).input_tokens
    h.equal(n, prompt_tokens(create().usage), "the prompt's tokens")


def errors():
    def ask(key=h.KEY, **more):
        return lambda: client.with_options(api_key=key).messages.create(**options(**more))

    h.raises(anthropic.AuthenticationError, ask(h.WRONG_KEY), 401)
    h.raises(anthropic.PermissionDeniedError, ask(h.OTHER_KEY), 403)
    e = h.raises(anthropic.NotFoundError, ask(model="no-such-model"), 404, "no-such-model")
    h.equal((e.body["type"], e.body["error"]["type"]), ("error", "not_found_error"), "types")
    h.check(e.request_id, "request id", e.response.headers)
    h.raises(anthropic.BadRequestError, ask(extra_body={"temperature": 9}), 400, "temperature")
    h.raises(anthropic.BadRequestError, ask(messages=user("word " * 20000)), 400, "prompt is too long")
    h.raises(anthropic.BadRequestError, ask(extra_body={"temperature": 9}, stream=True), 400)

    def until_limited():
        for _ in range(3):
            ask(h.LIMITED_KEY)()

    e = h.raises(anthropic.RateLimitError, until_limited, 429)
    h.check(int(e.response.headers["retry-after"]) > 0, "Retry-After", e.response.headers)


def cancel_stream():
    before = h.cancelled()
    with client.messages.stream(**options(h.LONG, max_tokens=h.LONG_TOKENS)) as events:
        next(iter(events.text_stream))
    h.one_more_cancelled(before)


def cancel_reply():
    before = h.cancelled()
    h.raises(anthropic.APITimeoutError, lambda: client.with_options(timeout=0.5).messages.create(
        **options(h.LONG, max_tokens=h.LONG_TOKENS)))
    h.one_more_cancelled(before)


NOT_THERE = h.skip("Anthropic's API has no such thing")
h.run("anthropic-python", anthropic.__version__, {
    "list": list_models, "chat": whole_reply, "stream": stream, "n": NOT_THERE, "stop": stop, "seed": NOT_THERE,
    "logprobs": NOT_THERE, "schema": schema, "reasoning": h.mock_only(reasoning, h.NO_REASONING), "tools_auto": tools_auto, "tools_required": tools_required,
    "tools_named": tools_named, "tools_stream": tools_stream, "tools_parallel": tools_parallel, "tool_loop": tool_loop,
    "completions": NOT_THERE, "count": count, "embeddings": NOT_THERE, "responses": NOT_THERE, "responses_stream": NOT_THERE,
    "responses_tools": NOT_THERE, "errors": errors, "cancel_stream": cancel_stream, "cancel_reply": cancel_reply,
})
