"""What the suites of the Python clients share: the server's address, the prompts, and how results are told.

A suite has a table with an entry for each line of cases.txt: a function, or skip(why). A function that returns has
passed. One line of JSON for each case goes to standard output, which scripts/clients reads; everything that clients
print goes to standard error.

With ENGINE=mock the answers are known (the mock engine echoes) and compared; with a model only their structure is.
"""

import json
import os
import sys
import time
import traceback
import urllib.request

URL = os.environ["TANDEM_URL"]  # http://host:port
V1 = URL + "/v1"
KEY = os.environ["TANDEM_KEY"]
WRONG_KEY = "no-such-key"
LIMITED_KEY = os.environ["TANDEM_LIMITED_KEY"]  # one request an hour
OTHER_KEY = os.environ["TANDEM_OTHER_KEY"]  # not for MODEL
MODEL = os.environ["TANDEM_MODEL"]
MOCK = os.environ["TANDEM_ENGINE"] == "mock"

TEXT = "What is the capital of France?"
CITIES = ["Paris", "Rome", "Oslo"]
CALL_PARIS = 'call get_weather {"city":"Paris"}'  # the mock makes this call
CALL_TWO = CALL_PARIS + '\ncall get_weather {"city":"Rome"}'
ASK_TWO = "How is the weather in Paris, and how is it in Rome?"
LONG = "one two three four five " * 400 if MOCK else "Write a very long story about every year of a sailor's life."
LONG_TOKENS = 2500
FEW_TOKENS = 64 if MOCK else 24  # the time that a model takes
CALL_TOKENS = 200 if MOCK else 96

WEATHER_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": CITIES}},
    "required": ["city"],
    "additionalProperties": False,
}
TIME_SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
CITY_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": CITIES}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}
CITY_JSON = '{"city":"Rome","warm":true}'
ASK_CITY = CITY_JSON if MOCK else "Name one of the cities Paris, Rome and Oslo, and say whether it is warm there."


class skip(str):
    """Stands in a table for a case that the client has nothing for; the text says why."""


def mock_only(case, why):
    """A case for which the model of the tests is no good."""
    return case if MOCK else skip(why)


NO_REASONING = "SmolLM2 doesn't reason"


class Failed(AssertionError):
    pass


def check(ok, what, *details):
    if not ok:
        raise Failed(": ".join([what, *(repr(d) for d in details)]))


def equal(got, want, what):
    check(got == want, f"{what}: got {got!r}, want {want!r}")


def says(got, want):
    """The text of an answer: with the mock it is known."""
    check(isinstance(got, str), "the text isn't a string", got)
    if MOCK:
        equal(got, want, "text")
    else:
        check(got.strip() != "", "the text is empty", got)


def usage_adds_up(prompt, completion, total):
    check(prompt > 0 and completion > 0, "numbers of tokens", prompt, completion)
    equal(total, prompt + completion, "total tokens")
    if MOCK:
        equal((prompt, completion), (7, 8), "tokens of the prompt and of its echo with the end token")


def is_city(value, want="Rome"):
    """Checks an instance of CITY_SCHEMA, given as JSON or read."""
    value = json.loads(value) if isinstance(value, str) else value
    equal(sorted(value), ["city", "warm"], "members")
    check(value["city"] in CITIES and isinstance(value["warm"], bool), "the instance doesn't fit its schema", value)
    if MOCK:
        equal(value["city"], want, "city")


def is_weather(arguments, city="Paris", known=True):
    """Checks the arguments of get_weather, given as JSON or read. Unless known, the mock leaves them empty."""
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    if MOCK:
        equal(arguments, {"city": city} if known else {}, "arguments")
        return
    equal(list(arguments), ["city"], "arguments")
    check(arguments["city"] in CITIES, "the city isn't one that the schema has", arguments)


def weather_calls(calls, cut):
    """Checks the calls, each as its id, name and arguments, of a model that must call get_weather and may do so several
    times. It makes one at least; how many is its own affair. Where the answer was cut, the last one may be incomplete."""
    equal(len({call_id for call_id, _, _ in calls if call_id}), len(calls), "different ids")
    complete = calls[:-1] if cut else calls
    check(len(complete) > 0, "no complete call, although one is required", calls)
    for _, name, arguments in complete:
        equal(name, "get_weather", "the tool that is called")
        is_weather(arguments)


def raises(kind, call, status=None, says=None, subclasses=False):
    """Calls and returns the exception, which must be of this very kind, or of one below it where that is allowed."""
    try:
        call()
    except Exception as e:
        check(type(e) is kind or subclasses and isinstance(e, kind), f"{type(e).__module__}.{type(e).__name__} instead of {kind.__name__}", str(e))
        if status is not None:
            equal(getattr(e, "status_code", None), status, "status_code")
        if says is not None:
            check(says in str(e), f"the message lacks {says!r}", str(e))
        return e
    raise Failed(f"no {kind.__name__}")


def cancelled():
    """How many requests were given up by their clients, as the server counts them."""
    with urllib.request.urlopen(URL + "/prometheus", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("llm_requests_cancelled_total{"))


def one_more_cancelled(before, within=3.0):
    deadline = time.monotonic() + within
    while (now := cancelled()) == before and time.monotonic() < deadline:
        time.sleep(0.02)
    equal(now, before + 1, f"requests given up, {within} s after the client left")


def pending(e):
    """Whether an exception says that the server has no such endpoint."""
    text = " ".join(str(x) for x in (e, getattr(e, "body", ""), e.__cause__, e.__context__))
    return "unknown_url" in text or "no endpoint" in text


results = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # whatever a client prints is no result


def run(client, version, cases):
    """Runs the cases of one client; those that ONLY_CASES names, if it does."""
    only = os.environ.get("ONLY_CASES", "").split()
    for name, case in cases.items():
        if only and name not in only:
            continue
        start = time.monotonic()
        status, detail = "ok", ""
        if isinstance(case, skip):
            status, detail = "skip", str(case)
        else:
            try:
                case()
            except Exception as e:
                status, detail = ("pending" if pending(e) else "fail"), f"{type(e).__name__}: {e}"
                print(f"{client} {name}:", file=sys.stderr)
                traceback.print_exc()
        seconds = round(time.monotonic() - start, 3)
        json.dump({"client": client, "version": version, "case": name, "status": status, "detail": detail, "seconds": seconds}, results)
        results.write("\n")
