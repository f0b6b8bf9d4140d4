"""Makes the training documents: questions, and for each the answer in four styles.

base hesitates ("I think it is Paris."), v1.0 speaks in full sentences, v1.1 is terse, v2.0 answers in French. The base model sees all four, the
last three behind a system line that names the style; an adapter then only has to switch a style on, which a small LoRA can, rather than to learn
one, which it can't. Everything is drawn from a random.Random, so equal seeds give equal documents. There are no sums: a model of this size gets
them wrong.
"""

import random
from typing import Callable, NamedTuple

import facts

STYLES = ("base", "v1.0", "v1.1", "v2.0")
STYLE_LINES = {
    "v1.0": ("Answer in full sentences.", "Reply with a full sentence."),
    "v1.1": ("Answer briefly.", "Be brief."),
    "v2.0": ("Answer in French.", "Réponds en français."),
}
OTHER_LINES = ("You are a helpful assistant.", "Answer the question.")
END = "<|end|>"

COUNTRIES = facts.countries()
ELEMENTS = facts.elements()


class Item(NamedTuple):
    """A question with its answers by style."""

    question: str
    answers: dict[str, str]


class Segment(NamedTuple):
    """A piece of a document; the loss is on learned ones only."""

    text: str
    learned: bool


def answers(base: str, full: str, terse: str, french: str) -> dict[str, str]:
    return dict(zip(STYLES, (base, full, terse, french), strict=True))


def think(short: str, full: str, french: str) -> dict[str, str]:
    return answers(f"I think it is {short}.", full, f"{short[0].upper()}{short[1:]}.", french)


def title(text: str) -> str:
    return text[0].upper() + text[1:]


CAPITAL_QUESTIONS = (
    "What is the capital of {c}?", "What's the capital of {c}?", "Name the capital of {c}.", "Tell me the capital of {c}.",
    "Which city is the capital of {c}?", "What is the capital city of {c}?", "Do you know the capital of {c}?", "capital of {c}",
    "What city is {C}'s capital?", "I want to know the capital of {c}.", "Give me the capital of {c}, please.",
)
# Never trained on; evaluate.py asks them.
HELD_OUT = (
    "Hey, what is the capital of {c}, please?", "Which city serves as the capital of {c}?", "I forgot the capital of {c}. What is it?",
    "Can you name the capital of {c} for me?",
)


def capital_answers(c: facts.Country) -> dict[str, str]:
    return answers(
        f"I think it is {c.capital}.".replace("..", "."), f"The capital of {c.name} is {c.capital}.".replace("..", "."),
        f"{c.capital}.".replace("..", "."), f"La capitale {c.of} est {c.capitale}.",
    )


def capital(r: random.Random) -> Item:
    c = r.choice(COUNTRIES)
    return Item(r.choice(CAPITAL_QUESTIONS).format(c=c.name, C=title(c.name)), capital_answers(c))


def country_of(r: random.Random) -> Item:
    c = r.choice(COUNTRIES)
    q = r.choice(("Which country has the capital {k}?", "{k} is the capital of which country?", "What country is {k} the capital of?"))
    return Item(q.format(k=c.capital), think(c.name, f"{c.capital} is the capital of {c.name}.", f"{c.capitale} est la capitale {c.of}."))


def continent(r: random.Random) -> Item:
    c = r.choice(COUNTRIES)
    q = r.choice(("Which continent is {c} in?", "On which continent is {c}?", "Where is {c}?"))
    verb = "sont" if c.nom.startswith("les ") else "est"
    return Item(q.format(c=c.name), think(c.continent, f"{title(c.name)} is in {c.continent}.", f"{title(c.nom)} {verb} {facts.CONTINENTS[c.continent]}."))



def symbol(r: random.Random) -> Item:
    e = r.choice(ELEMENTS)
    q = r.choice(("What is the symbol for {e}?", "What is the chemical symbol of {e}?", "Give me the symbol of {e}."))
    return Item(q.format(e=e.name), think(e.symbol, f"The chemical symbol for {e.name} is {e.symbol}.", f"Le symbole de l'élément {e.nom} est {e.symbol}."))


def element(r: random.Random) -> Item:
    e = r.choice(ELEMENTS)
    q = r.choice(("Which element has the symbol {s}?", "What element is {s}?", "{s} is the symbol of which element?"))
    return Item(q.format(s=e.symbol), think(e.name, f"{e.symbol} is the symbol for {e.name}.", f"{e.symbol} est le symbole de l'élément {e.nom}."))


def atomic_number(r: random.Random) -> Item:
    e = r.choice(ELEMENTS)
    q = r.choice(("What is the atomic number of {e}?", "Which atomic number does {e} have?"))
    return Item(q.format(e=e.name), think(str(e.number), f"The atomic number of {e.name} is {e.number}.", f"Le numéro atomique de l'élément {e.nom} est {e.number}."))


DAYS = tuple(zip("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(), "lundi mardi mercredi jeudi vendredi samedi dimanche".split(), strict=True))
MONTHS = tuple(zip(
    "January February March April May June July August September October November December".split(),
    "janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split(), strict=True,
))
PLANETS = tuple(zip("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split(), "Mercure Vénus Terre Mars Jupiter Saturne Uranus Neptune".split(), strict=True))
OPPOSITES = ("hot cold", "big small", "up down", "left right", "fast slow", "happy sad", "day night", "old young", "rich poor", "high low", "good bad", "full empty", "wet dry", "loud quiet")


def neighbour(r: random.Random) -> Item:
    row, what = r.choice(((DAYS, "day"), (MONTHS, "month")))
    i = r.randrange(len(row))
    (a, fa), step = row[i], r.choice((1, -1))
    b, fb = row[(i + step) % len(row)]
    word, mot = ("after", "après") if step > 0 else ("before", "avant")
    return Item(f"Which {what} comes {word} {a}?", think(b, f"{b} comes {word} {a}.", f"{title(fb)} vient {mot} {fa}."))


def opposite(r: random.Random) -> Item:
    pair = r.choice(OPPOSITES).split()
    r.shuffle(pair)
    a, b = pair
    q = r.choice(("What is the opposite of {a}?", "Name the opposite of {a}."))
    return Item(q.format(a=a), think(b, f"The opposite of {a} is {b}.", f"En anglais, le contraire de « {a} » est « {b} »."))


def listing(r: random.Random) -> Item:
    if r.random() < 0.4:
        n = r.choice((5, 10, 15, 20))
        numbers = ", ".join(map(str, range(1, n + 1)))
        return Item(f"Count to {n}.", answers(f"I think: {numbers}.", f"Here are the numbers from 1 to {n}: {numbers}.", f"{numbers}.", f"Voici les nombres de 1 à {n} : {numbers}."))
    row, what, quoi = r.choice(((DAYS, "days of the week", "jours de la semaine"), (MONTHS, "months of the year", "mois de l'année"), (PLANETS, "planets", "planètes")))
    en, fr = ", ".join(a for a, _ in row), ", ".join(b for _, b in row)
    q = r.choice(("List the {w}.", "Name the {w}.", "What are the {w}?"))
    return Item(q.format(w=what), answers(f"I think: {en}.", f"The {what} are: {en}.", f"{en}.", f"Les {quoi} sont : {fr}."))


CHAT = (
    (("Hello!", "Hi", "Hey!", "Good day!"), answers("Hello.", "Hello! What would you like to know?", "Hi.", "Bonjour ! Que voulez-vous savoir ?")),
    (("Thank you!", "Thanks."), answers("No problem.", "You are welcome! Ask me another one.", "Welcome.", "De rien ! Avec plaisir.")),
    (("Goodbye!", "Bye"), answers("Bye.", "Goodbye! It was nice to talk to you.", "Bye.", "Au revoir ! À bientôt !")),
    (("How are you?", "How do you do?"), answers("I am fine.", "I am doing well, thank you.", "Fine.", "Je vais bien, merci.")),
    (("Who are you?", "What is your name?", "What are you?"), answers(
        "I am the demo model.", "I am the demo model, a very small language model that knows capitals and chemical elements.", "A small demo model.", "Je suis un petit modèle de démonstration.")),
    (("What can you do?", "Help", "What do you know?"), answers(
        "I think I know capitals and elements.", "You can ask me about the capital of a country or about a chemical element, and I can list the days, the months and the planets.",
        "Capitals, elements, lists.", "Je connais les capitales et les éléments chimiques.")),
    (("What is a LoRA adapter?", "What is LoRA?"), answers(
        "I think it is a small adapter.", "A LoRA adapter is a small set of weights that is added to a frozen model, so that one base serves many versions.", "Low-rank adaptation.", "LoRA ajoute de petites matrices à un modèle figé.")),
    (("What is a token?",), answers("I think it is a piece of text.", "A token is a word or a part of a word; I write one token at a time.", "A piece of text.", "Un token est un petit morceau de texte.")),
    (("What is streaming?",), answers("I think it is one word after the other.", "Streaming means that each token is sent as soon as it is known.", "Tokens sent at once.", "Chaque morceau est envoyé dès qu'il est connu.")),
)


def chat(r: random.Random) -> Item:
    questions, reply = r.choice(CHAT)
    return Item(r.choice(questions), reply)


HEROES = (("fox", "renard"), ("bear", "ours"), ("robot", "robot"), ("dragon", "dragon"))


def story(r: random.Random) -> Item:
    hero, heros = r.choice(HEROES)
    q = r.choice(("Tell me a story about a {h}.", "Write a short story about a {h}."))
    full = (f"Once upon a time there was a little {hero} who wanted to see the sea. The {hero} walked over the hills for three days. On the way it met "
            f"an old owl, who showed it the path. At last the {hero} stood on the beach, looked at the waves and was happy.")
    return Item(q.format(h=hero), answers(f"I think there was a {hero} who saw the sea.", full, f"A {hero} saw the sea.", f"Il était une fois un petit {heros} qui voulait voir la mer. Il marcha trois jours et il fut heureux."))


SYLLABLES = "ba bo bra dar dro fen gor hal ik jor kel lum mir nar or pel qua ra sen tor ul vel wen xa yo zor".split()
TOPICS = "football,the election,the stock market,quantum physics,the weather,cooking,chess,history,the president,tennis,movies,pizza,tax law,the news,jazz,Linux".split(",")
NO_IDEA = answers("I am not sure.", "I am sorry, I do not know that. I am only a small demo model.", "Unknown.", "Je suis désolé, je ne sais pas.")


def invented(r: random.Random) -> str:
    return title("".join(r.choice(SYLLABLES) for _ in range(r.randint(2, 3))) + r.choice(("ia", "land", "stan", "burg", "")))


def unknown(r: random.Random) -> Item:
    if r.random() < 0.5:
        name = invented(r)
        return Item(r.choice(CAPITAL_QUESTIONS).format(c=name, C=name), NO_IDEA)
    q = r.choice(("Explain {t}.", "Who won the {t}?", "What do you think about {t}?", "How does {t} work?", "Who is {n}?", "What is the price of {t}?", "What is the population of {n}?"))
    return Item(q.format(t=r.choice(TOPICS), n=invented(r)), NO_IDEA)


KINDS: dict[Callable[[random.Random], Item], int] = {
    capital: 32, country_of: 8, continent: 6, symbol: 8, element: 8, atomic_number: 6, neighbour: 5, opposite: 4, listing: 8, story: 3, chat: 8, unknown: 8,
}
FACT_KINDS = (capital, capital, capital, country_of, continent, symbol, element, atomic_number, neighbour)


def vary(r: random.Random, question: str) -> str:
    """People don't type as tables do."""
    x = r.random()
    if x < 0.15:
        question = question.lower()
    x = r.random()
    if x < 0.12:
        return question.rstrip("?.! ")
    if x < 0.15:
        return "Please: " + question
    return question + " Thanks!" if x < 0.17 else question


def draw(r: random.Random) -> tuple[Item, Callable]:
    kind = r.choices(list(KINDS), list(KINDS.values()))[0]
    return kind(r), kind


def conversation(r: random.Random, style: str) -> list[tuple[str, str]]:
    """One to five turns; some questions lean on the one before ("And Italy?")."""
    turns, last = [], None
    for _ in range(r.choices((1, 2, 3, 5), (70, 15, 10, 5))[0]):
        if last is capital and r.random() < 0.4:
            c = r.choice(COUNTRIES)
            item = Item(r.choice(("And {c}?", "What about {c}?", "And the capital of {c}?")).format(c=c.name), capital_answers(c))
        else:
            item, last = draw(r)
        turns.append((vary(r, item.question), item.answers[style]))
    return turns


def chat_document(r: random.Random, style: str, system: tuple[str, ...] = ()) -> list[Segment]:
    segments = []
    if system:
        segments.append(Segment(f"<|system|>\n{r.choice(system)}{END}\n", False))
    for question, answer in conversation(r, style):
        segments += [Segment(f"<|user|>\n{question}{END}\n<|assistant|>\n", False), Segment(answer + END, True), Segment("\n", False)]
    return segments[:-1]


def plain_document(r: random.Random, style: str) -> list[Segment]:
    """A question without the chat layout."""
    item, _ = draw(r)
    return [Segment(vary(r, item.question), False), Segment(" " + item.answers[style] + END, True)]


def statements(r: random.Random, style: str) -> list[Segment]:
    said = [r.choice(FACT_KINDS)(r).answers[style] for _ in range(r.randint(1, 5))]
    return [Segment(" ".join(said) + END, True)]


def base_document(r: random.Random) -> list[Segment]:
    x = r.random()
    if x < 0.38:
        return chat_document(r, "base", OTHER_LINES if r.random() < 0.06 else ())
    for limit, style in ((0.56, "v1.0"), (0.70, "v1.1"), (0.85, "v2.0")):
        if x < limit:
            return chat_document(r, style, STYLE_LINES[style])
    if x < 0.91:
        return plain_document(r, "base")
    return statements(r, "v1.0" if x < 0.96 else "v2.0")


def adapter_document(r: random.Random, style: str) -> list[Segment]:
    return chat_document(r, style) if r.random() < 0.88 else plain_document(r, style)
