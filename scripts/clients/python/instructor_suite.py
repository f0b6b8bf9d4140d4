"""instructor over OpenAI's library: pydantic models out of tool calls and out of JSON."""

from importlib.metadata import version
from typing import Iterable, Literal

import instructor
import openai
from pydantic import BaseModel, field_validator

import harness as h

plain = openai.OpenAI(base_url=h.V1, api_key=h.KEY, max_retries=0)


class City(BaseModel):
    """A city and whether it is warm there."""

    city: Literal["Paris", "Rome", "Oslo"]
    warm: bool


CALL_CITY = "call City " + h.CITY_JSON


def client(mode):
    return instructor.from_openai(plain, mode=mode)


def create(mode, text, kind=City, **options):
    options = {"max_tokens": h.CALL_TOKENS, "temperature": 0, "max_retries": 0} | options
    return client(mode).chat.completions.create(model=h.MODEL, messages=[{"role": "user", "content": text}], response_model=kind, **options)


def is_city(found):
    h.check(isinstance(found, City), "not the client's type", found)
    h.is_city({"city": found.city, "warm": found.warm})


def whole_reply():
    text = client(instructor.Mode.TOOLS).chat.completions.create(
        model=h.MODEL, messages=[{"role": "user", "content": h.TEXT}], response_model=None, max_tokens=h.FEW_TOKENS)
    h.says(text.choices[0].message.content, h.TEXT)


def stream():
    last = None
    for last in client(instructor.Mode.TOOLS).chat.completions.create_partial(
            model=h.MODEL, messages=[{"role": "user", "content": "call PartialCity " + h.CITY_JSON}], response_model=City, max_tokens=h.CALL_TOKENS, temperature=0):
        pass
    h.is_city({"city": last.city, "warm": last.warm})


def schema():
    is_city(create(instructor.Mode.JSON_SCHEMA, h.ASK_CITY))
    if h.MOCK:  # asks for any object and describes the schema in words, which is too much for a small model
        is_city(create(instructor.Mode.JSON, h.ASK_CITY))


def tools_named():
    is_city(create(instructor.Mode.TOOLS, CALL_CITY))
    found, reply = client(instructor.Mode.TOOLS).chat.completions.create_with_completion(
        model=h.MODEL, messages=[{"role": "user", "content": CALL_CITY}], response_model=City, max_tokens=h.CALL_TOKENS, temperature=0)
    is_city(found)
    h.check(reply.usage.total_tokens > 0, "usage", reply.usage)


def tools_stream():
    found = list(create(instructor.Mode.TOOLS, 'call IterableCity {"tasks":[%s]}' % h.CITY_JSON, Iterable[City], stream=True))
    h.check(all(isinstance(c, City) for c in found), "not the client's type", found)
    if h.MOCK:
        h.equal(len(found), 1, "objects of the stream")


def tool_loop():
    tries = []

    class Late(City):
        @field_validator("warm")
        @classmethod
        def refuse_once(cls, v):
            tries.append(v)
            if len(tries) == 1:
                raise ValueError("try again")
            return v

    Late.__name__ = "City"
    if h.MOCK:  # its second answer is the error's text, in which is no call
        h.raises(instructor_failure(), lambda: create(instructor.Mode.TOOLS, CALL_CITY, Late, max_retries=1, max_tokens=1000))
    else:
        h.check(isinstance(create(instructor.Mode.TOOLS, "Name a city.", Late, max_retries=1), City), "not the client's type")
        h.equal(len(tries), 2, "answers that were validated")


def instructor_failure():
    from instructor.core import InstructorRetryException

    return InstructorRetryException


def errors():
    wrong = instructor.from_openai(plain.with_options(api_key=h.WRONG_KEY))
    e = h.raises(instructor_failure(), lambda: wrong.chat.completions.create(
        model=h.MODEL, messages=[{"role": "user", "content": h.TEXT}], response_model=City, max_retries=0))
    h.check("401" in str(e) or "invalid_api_key" in str(e), "the status isn't in the message", str(e))


def cancel_reply():
    before = h.cancelled()
    hasty = instructor.from_openai(plain.with_options(timeout=0.5))
    h.raises(openai.APITimeoutError, lambda: hasty.chat.completions.create(
        model=h.MODEL, messages=[{"role": "user", "content": h.LONG}], response_model=None, max_tokens=h.LONG_TOKENS))
    h.one_more_cancelled(before)


ONLY_TYPED = h.skip("instructor passes it on to OpenAI's library")
h.run("instructor", version("instructor"), {
    "chat": whole_reply, "stream": stream, "schema": schema, "tools_named": tools_named, "tools_stream": tools_stream,
    "tool_loop": tool_loop, "errors": errors, "cancel_reply": cancel_reply,
} | {c: ONLY_TYPED for c in (
    "list", "n", "stop", "seed", "logprobs", "reasoning", "tools_auto", "tools_required", "tools_parallel", "completions", "count",
    "embeddings", "responses", "responses_stream", "responses_tools", "cancel_stream")})
