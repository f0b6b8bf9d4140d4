"""LiteLLM, as a library, with its prefixes openai/ and anthropic/."""

import json
from importlib.metadata import version
from typing import Literal

import litellm
from pydantic import BaseModel

import harness as h

litellm.suppress_debug_info = True


class City(BaseModel):
    city: Literal["Paris", "Rome", "Oslo"]
    warm: bool


def function(name, schema):
    return {"type": "function", "function": {"name": name, "description": "The " + name, "parameters": schema}}


TOOLS = [function("get_time", h.TIME_SCHEMA), function("get_weather", h.WEATHER_SCHEMA)]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
OPENAI = {"api_base": h.V1, "prefix": "openai/"}
ANTHROPIC = {"api_base": h.URL, "prefix": "anthropic/"}


def user(text):
    return [{"role": "user", "content": text}]


def cases_of(api):
    """The cases of one prefix."""

    def ask(text=h.TEXT, model=h.MODEL, **options):
        options = {"messages": user(text), "max_tokens": h.CALL_TOKENS, "temperature": 0, "api_key": h.KEY, "num_retries": 0} | options
        return litellm.completion(model=api["prefix"] + model, api_base=api["api_base"], **options)

    def content(reply):
        return reply.choices[0].message.content

    def chat():
        reply = ask()
        h.equal(reply.choices[0].message.role, "assistant", "role")
        h.says(content(reply), h.TEXT)
        u = reply.usage
        h.usage_adds_up(u.prompt_tokens, u.completion_tokens, u.total_tokens)
        h.equal(ask(max_tokens=2).choices[0].finish_reason, "length", "finish_reason of an answer that is cut")

    def stream():
        chunks = list(ask(stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        h.equal(text, content(ask()), "the text of the stream and of the whole reply")
        whole = litellm.stream_chunk_builder(chunks)
        h.usage_adds_up(whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens)

    def stop():
        whole = content(ask())
        word = "capital" if h.MOCK else whole.split()[2]
        h.equal(content(ask(stop=[word])), whole[: whole.index(word)], "the text before the stop string")

    def schema():
        text = "call json_tool_call " + h.CITY_JSON if api is ANTHROPIC and h.MOCK else h.ASK_CITY  # it makes a tool of the schema
        h.is_city(content(ask(text, response_format=City)))

    def only_call(reply):
        h.equal(reply.choices[0].finish_reason, "tool_calls", "finish_reason")
        calls = reply.choices[0].message.tool_calls
        h.equal([c.function.name for c in calls], ["get_weather"], "calls")
        h.check(calls[0].id, "id of the call", calls)
        return calls[0]

    def tools_auto():
        reply = ask(h.CALL_PARIS, tools=TOOLS)
        if h.MOCK:
            h.is_weather(only_call(reply).function.arguments)
            h.says(content(ask(tools=TOOLS)), h.TEXT)

    def tools_required():
        reply = ask(h.CALL_PARIS, tools=TOOLS[1:], tool_choice="required", parallel_tool_calls=False)
        h.is_weather(only_call(reply).function.arguments)

    def tools_named():
        reply = ask(h.CALL_PARIS, tools=TOOLS, tool_choice=NAMED, parallel_tool_calls=False)
        h.is_weather(only_call(reply).function.arguments)

    def tools_stream():
        chunks = list(ask(h.CALL_PARIS, tools=TOOLS[1:], tool_choice="required", parallel_tool_calls=False, stream=True))
        h.is_weather(only_call(litellm.stream_chunk_builder(chunks)).function.arguments)

    def tools_parallel():
        if not h.MOCK:
            choice = ask(h.ASK_TWO, tools=TOOLS[1:], tool_choice="required").choices[0]
            calls = choice.message.tool_calls or []
            h.weather_calls([(c.id, c.function.name, c.function.arguments) for c in calls], choice.finish_reason == "length")
            return
        calls = ask(h.CALL_TWO, tools=TOOLS).choices[0].message.tool_calls
        h.equal(len({c.id for c in calls}), len(calls), "different ids")
        h.equal([json.loads(c.function.arguments)["city"] for c in calls], ["Paris", "Rome"], "cities")

    def tool_loop():
        asked = ask(h.CALL_PARIS, tools=TOOLS[1:], tool_choice="required", parallel_tool_calls=False).choices[0].message
        result = {"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": "It rains."}
        messages = user(h.CALL_PARIS) + [asked.model_dump(), result]
        h.says(content(ask(messages=messages, tools=TOOLS[1:], tool_choice="none")), "It rains.")

    def reasoning():
        more = {}
        if api is ANTHROPIC:  # whose models it knows; of ours it must be told that they can think
            more = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "allowed_openai_params": ["thinking"], "max_tokens": 2048, "temperature": 1}
        message = ask("think why not\nyes", **more).choices[0].message
        h.equal((message.reasoning_content, message.content), ("why not", "yes"), "reasoning and text")

    def errors():
        def call(**options):
            return lambda: ask(**({"max_tokens": 2} | options))

        h.raises(litellm.AuthenticationError, call(api_key=h.WRONG_KEY), 401)
        # LiteLLM has no class of its own for 403 of OpenAI's API.
        h.raises(litellm.APIError if api is OPENAI else litellm.PermissionDeniedError, call(api_key=h.OTHER_KEY), 403)
        h.raises(litellm.NotFoundError, call(model="no-such-model"), 404, "no-such-model")
        h.raises(litellm.BadRequestError, call(temperature=9), 400, "temperature")
        h.raises(litellm.ContextWindowExceededError, call(text="word " * 20000), 400)

        def until_limited():
            for _ in range(3):
                call(api_key=h.LIMITED_KEY)()

        h.raises(litellm.RateLimitError, until_limited, 429)

    def cancel_stream():
        before = h.cancelled()
        chunks = ask(h.LONG, max_tokens=h.LONG_TOKENS, stream=True)
        for chunk in chunks:
            if chunk.choices[0].delta.content:
                break
        close = getattr(chunks.completion_stream, "close", None) or chunks.completion_stream.response.close
        close()
        h.one_more_cancelled(before)

    def cancel_reply():
        before = h.cancelled()
        h.raises(litellm.Timeout, lambda: ask(h.LONG, max_tokens=h.LONG_TOKENS, timeout=0.5))
        h.one_more_cancelled(before)

    return {
        "chat": chat, "stream": stream, "stop": stop, "schema": schema, "reasoning": h.mock_only(reasoning, h.NO_REASONING), "tools_auto": tools_auto,
        "tools_required": tools_required, "tools_named": tools_named, "tools_stream": tools_stream, "tools_parallel": tools_parallel,
        "tool_loop": tool_loop, "errors": errors, "cancel_stream": cancel_stream, "cancel_reply": cancel_reply,
    }


def openai(call, **options):
    return call(model="openai/" + h.MODEL, api_base=h.V1, api_key=h.KEY, **options)


def list_models():
    names = litellm.get_valid_models(check_provider_endpoint=True, custom_llm_provider="openai", api_base=h.URL, api_key=h.KEY)
    h.check(any(n.removeprefix("openai/") == h.MODEL for n in names), "the model isn't in the list", names)


def several():
    reply = openai(litellm.completion, messages=user(h.TEXT), n=2, temperature=1, seed=1, max_tokens=h.FEW_TOKENS)
    h.equal([c.index for c in reply.choices], [0, 1], "indexes")
    for choice in reply.choices:
        h.says(choice.message.content, h.TEXT)


def seed():
    texts = [openai(litellm.completion, messages=user(h.TEXT), temperature=1, seed=11, max_tokens=h.FEW_TOKENS).choices[0].message.content
             for _ in range(2)]
    h.equal(texts[0], texts[1], "texts with one seed")


def logprobs():
    choice = openai(litellm.completion, messages=user(h.TEXT), logprobs=True, top_logprobs=2, max_tokens=h.FEW_TOKENS).choices[0]
    h.equal("".join(t["token"] for t in choice.logprobs["content"]), choice.message.content, "the tokens put together")


def completions():
    reply = litellm.text_completion(model="text-completion-openai/" + h.MODEL, prompt="one two", api_base=h.V1, api_key=h.KEY,
                                    max_tokens=8, temperature=0)
    h.says(reply.choices[0].text, "one two")


def embeddings():
    reply = openai(litellm.embedding, input=[h.TEXT, "one"])
    h.equal([abs(sum(x * x for x in d["embedding"]) - 1) < 1e-3 for d in reply.data], [True, True], "lengths of 1")
    h.check(reply.usage.prompt_tokens > 0, "usage", reply.usage)


def text_of_response(reply):
    return "".join(c.text for o in reply.output if o.type == "message" for c in o.content)


def responses():
    h.says(text_of_response(openai(litellm.responses, input=h.TEXT, max_output_tokens=h.FEW_TOKENS, store=False)), h.TEXT)


def responses_stream():
    events = list(openai(litellm.responses, input=h.TEXT, max_output_tokens=h.FEW_TOKENS, store=False, stream=True))
    h.says("".join(e.delta for e in events if e.type == "response.output_text.delta"), h.TEXT)


def responses_tools():
    tools = [{"type": "function", "name": "get_weather", "parameters": h.WEATHER_SCHEMA, "strict": True}]
    reply = openai(litellm.responses, input=h.CALL_PARIS, tools=tools, tool_choice="required", parallel_tool_calls=False, store=False)
    calls = [o for o in reply.output if o.type == "function_call"]
    h.equal([c.name for c in calls], ["get_weather"], "calls")
    h.is_weather(calls[0].arguments)


NOT_ANTHROPIC = h.skip("Anthropic's API has no such thing")
NO_COUNT = h.skip("it counts with a vocabulary of its own, without the server")
h.run("litellm-openai", version("litellm"), cases_of(OPENAI) | {
    "list": list_models, "n": several, "seed": seed, "logprobs": logprobs, "completions": completions, "count": NO_COUNT,
    "embeddings": embeddings, "responses": responses, "responses_stream": responses_stream, "responses_tools": responses_tools,
})
h.run("litellm-anthropic", version("litellm"), cases_of(ANTHROPIC) | {
    "list": h.skip("it asks only Anthropic's own server"), "count": NO_COUNT,
} | {c: NOT_ANTHROPIC for c in ("n", "seed", "logprobs", "completions", "embeddings", "responses", "responses_stream", "responses_tools")})
