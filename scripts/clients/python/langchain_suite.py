"""LangChain with its models for OpenAI's and for Anthropic's API: the same cases through one interface."""

from importlib.metadata import version
from typing import Literal

import anthropic
import openai
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

import harness as h


class City(BaseModel):
    """A city and whether it is warm there."""

    city: Literal["Paris", "Rome", "Oslo"]
    warm: bool


@tool
def get_weather(city: Literal["Paris", "Rome", "Oslo"]) -> str:
    """The weather of a city."""
    return "The sun shines."


@tool
def get_time() -> str:
    """The time."""
    return "It is noon."


def openai_model(**options):
    options = {"model": h.MODEL, "api_key": h.KEY, "max_tokens": h.CALL_TOKENS, "temperature": 0, "max_retries": 0} | options
    return ChatOpenAI(base_url=h.V1, **options)


def anthropic_model(**options):
    options = {"model": h.MODEL, "api_key": h.KEY, "max_tokens": h.CALL_TOKENS, "temperature": 0, "max_retries": 0} | options
    return ChatAnthropic(base_url=h.URL, **options)


def usage_of(message):
    u = message.usage_metadata
    h.usage_adds_up(u["input_tokens"], u["output_tokens"], u["total_tokens"])


def text_of(message):
    return message.text if isinstance(message.text, str) else message.text()


def cases_of(model, errors, no_tool):
    """The cases of one class of models; errors has its exceptions, no_tool is its tool_choice for none."""

    def chat():
        reply = model().invoke([SystemMessage("You are brief."), HumanMessage(h.TEXT)])
        h.says(text_of(reply), h.TEXT)
        usage_of(reply)

    def stream():
        chunks = list(model(stream_usage=True).stream(h.TEXT))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        h.equal(text_of(whole), text_of(model().invoke(h.TEXT)), "the text of the stream and of the whole reply")
        usage_of(whole)

    def stop():
        whole = text_of(model().invoke(h.TEXT))
        word = "capital" if h.MOCK else whole.split()[2]
        h.equal(text_of(model().invoke(h.TEXT, stop=[word])), whole[: whole.index(word)], "the text before the stop string")

    def schema():
        found = model().with_structured_output(City, method="json_schema").invoke(h.ASK_CITY)
        h.check(isinstance(found, City), "not the client's type", found)
        found = model().with_structured_output(City, method="function_calling").invoke("call City " + h.CITY_JSON)
        h.check(isinstance(found, City), "not the client's type", found)

    def calls(text, tools=(get_weather, get_time), **options):
        return model().bind_tools(list(tools), **options).invoke(text).tool_calls

    def one_call(calls):
        h.equal([c["name"] for c in calls], ["get_weather"], "calls")
        h.check(calls[0]["id"], "id of the call", calls)
        return calls[0]["args"]

    def tools_auto():
        found = calls(h.CALL_PARIS)
        if h.MOCK:
            h.is_weather(one_call(found))
            h.equal(calls(h.TEXT), [], "calls")

    def tools_required():
        h.is_weather(one_call(calls(h.CALL_PARIS, [get_weather], tool_choice="any", parallel_tool_calls=False)))

    def tools_named():
        h.is_weather(one_call(calls(h.CALL_PARIS, tool_choice="get_weather", parallel_tool_calls=False)))

    def tools_stream():
        bound = model().bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
        chunks = list(bound.stream(h.CALL_PARIS))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        h.is_weather(one_call(whole.tool_calls))

    def tools_parallel():
        if not h.MOCK:
            reply = model().bind_tools([get_weather], tool_choice="any").invoke(h.ASK_TWO)
            end = reply.response_metadata
            cut = end.get("finish_reason") == "length" or end.get("stop_reason") == "max_tokens"
            # A call whose arguments are no JSON isn't among the others.
            h.weather_calls([(c["id"], c["name"], c["args"]) for c in reply.tool_calls], cut and not reply.invalid_tool_calls)
            return
        found = calls(h.CALL_TWO)
        h.equal(len({c["id"] for c in found}), len(found), "different ids")
        h.equal([c["args"]["city"] for c in found], ["Paris", "Rome"], "cities")

    def tool_loop():
        agent = create_agent(model(), tools=[get_weather, get_time], system_prompt="You are brief.")
        messages = agent.invoke({"messages": [HumanMessage(h.CALL_PARIS)]}, {"recursion_limit": 12})["messages"]
        h.check(isinstance(messages[-1], AIMessage) and not messages[-1].tool_calls, "the agent's end", messages[-1])
        if h.MOCK:
            h.equal([type(m) for m in messages], [HumanMessage, AIMessage, ToolMessage, AIMessage], "messages of the agent")
            h.equal(text_of(messages[-1]), "The sun shines.", "the agent's answer")
        asked = model().bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False).invoke(h.CALL_PARIS)
        history = [HumanMessage(h.CALL_PARIS), asked, get_weather.invoke(asked.tool_calls[0])]
        h.says(text_of(model().bind_tools([get_weather], tool_choice=no_tool).invoke(history)), "The sun shines.")

    def refusals():
        def call(**options):
            return lambda: model(**options).invoke(h.TEXT)

        h.raises(errors.AuthenticationError, call(api_key=h.WRONG_KEY), 401, subclasses=True)
        h.raises(errors.PermissionDeniedError, call(api_key=h.OTHER_KEY), 403, subclasses=True)
        h.raises(errors.NotFoundError, call(model="no-such-model"), 404, "no-such-model", subclasses=True)
        try:
            model().invoke("word " * 20000)
            raise h.Failed("no exception for a prompt that is too long")
        except errors.BadRequestError as e:
            h.check("ContextOverflow" in "".join(c.__name__ for c in type(e).__mro__), "not LangChain's own class for it", type(e).__mro__)

        def until_limited():
            for _ in range(3):
                call(api_key=h.LIMITED_KEY)()

        h.raises(errors.RateLimitError, until_limited, 429, subclasses=True)

    def cancel_stream():
        before = h.cancelled()
        for chunk in model(max_tokens=h.LONG_TOKENS).stream(h.LONG):
            if text_of(chunk):
                break
        h.one_more_cancelled(before)

    def cancel_reply():
        before = h.cancelled()
        h.raises(errors.APITimeoutError, lambda: model(max_tokens=h.LONG_TOKENS, timeout=0.5).invoke(h.LONG), subclasses=True)
        h.one_more_cancelled(before)

    return {
        "chat": chat, "stream": stream, "stop": stop, "schema": schema, "tools_auto": tools_auto, "tools_required": tools_required,
        "tools_named": tools_named, "tools_stream": tools_stream, "tools_parallel": tools_parallel, "tool_loop": tool_loop,
        "errors": refusals, "cancel_stream": cancel_stream, "cancel_reply": cancel_reply,
    }


def several():
    generations = openai_model(n=2, temperature=1, seed=1).generate([[HumanMessage(h.TEXT)]]).generations[0]
    h.equal(len(generations), 2, "answers")
    for g in generations:
        h.says(g.text, h.TEXT)


def seed():
    texts = [openai_model(temperature=1, seed=11).invoke(h.TEXT).text for _ in range(2)]
    h.equal(texts[0], texts[1], "texts with one seed")


def logprobs():
    reply = openai_model(logprobs=True, top_logprobs=2).invoke(h.TEXT)
    tokens = reply.response_metadata["logprobs"]["content"]
    h.equal("".join(t["token"] for t in tokens), reply.text, "the tokens put together")


def completions():
    text = OpenAI(base_url=h.V1, api_key=h.KEY, model=h.MODEL, temperature=0, max_tokens=8, max_retries=0).invoke("one two")
    h.says(text, "one two")


def embeddings():
    # Otherwise it sends token ids of OpenAI's vocabulary.
    e = OpenAIEmbeddings(base_url=h.V1, api_key=h.KEY, model=h.MODEL, check_embedding_ctx_length=False, max_retries=0)
    vectors = e.embed_documents([h.TEXT, "one"])
    h.equal([abs(sum(x * x for x in v) - 1) < 1e-3 for v in vectors], [True, True], "lengths of 1")
    h.check(all(abs(a - b) < 1e-4 for a, b in zip(e.embed_query("one"), vectors[1])), "the vector of one text alone")


def reasoning():
    reply = anthropic_model(max_tokens=2048, thinking={"type": "enabled", "budget_tokens": 1024}, temperature=1).invoke("think why not\nyes")
    h.equal([b["type"] for b in reply.content], ["thinking", "text"], "blocks")
    h.equal(reply.content[0]["thinking"], "why not", "reasoning")


def count():
    h.check(anthropic_model().get_num_tokens_from_messages([HumanMessage(h.TEXT)]) > 0, "tokens")


def with_responses(**options):
    return openai_model(use_responses_api=True, store=False, **options)


def responses():
    reply = with_responses().invoke(h.TEXT)
    h.says(reply.text, h.TEXT)
    usage_of(reply)


def responses_stream():
    chunks = list(with_responses().stream(h.TEXT))
    h.says("".join(c.text for c in chunks), h.TEXT)


def responses_tools():
    found = with_responses().bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False).invoke(h.CALL_PARIS).tool_calls
    h.equal([c["name"] for c in found], ["get_weather"], "calls")
    h.is_weather(found[0]["args"])


NO_LIST = h.skip("LangChain has nothing for it")
NOT_ANTHROPIC = h.skip("Anthropic's API has no such thing")

h.run("langchain-openai", version("langchain-openai"), cases_of(openai_model, openai, "none") | {
    "list": NO_LIST, "n": several, "seed": seed, "logprobs": logprobs,
    "reasoning": h.skip("LangChain's class for OpenAI leaves reasoning_content out"), "completions": completions,
    "count": h.skip("it counts with OpenAI's vocabulary, without the server"), "embeddings": embeddings,
    "responses": responses, "responses_stream": responses_stream, "responses_tools": responses_tools,
})
h.run("langchain-anthropic", version("langchain-anthropic"), cases_of(anthropic_model, anthropic, {"type": "none"}) | {
    "list": NO_LIST, "reasoning": h.mock_only(reasoning, h.NO_REASONING), "count": count,
} | {c: NOT_ANTHROPIC for c in ("n", "seed", "logprobs", "completions", "embeddings", "responses", "responses_stream", "responses_tools")})
