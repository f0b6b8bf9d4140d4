"""The tables in facts/, checked while they are read: what the demo model is taught must at least be whole and without doublets."""

import csv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CONTINENTS = {
    "Africa": "en Afrique", "Asia": "en Asie", "Europe": "en Europe", "North America": "en Amérique du Nord",
    "South America": "en Amérique du Sud", "Oceania": "en Océanie",
}
COUNTRY_COUNT = 194  # members of the United Nations and the Vatican


@dataclass(frozen=True)
class Country:
    continent: str
    name: str  # with "the" where English wants it
    capital: str
    nom: str  # French, with article
    capitale: str

    @property
    def of(self) -> str:
        """The French name after "de"."""
        for article, joined in (("le ", "du "), ("les ", "des ")):
            if self.nom.startswith(article):
                return joined + self.nom[len(article):]
        if self.nom.startswith(("la ", "l'")):
            return "de " + self.nom
        return ("d'" if self.nom[0] in "AEIOUÉHÎ" else "de ") + self.nom


@dataclass(frozen=True)
class Element:
    number: int
    symbol: str
    name: str
    nom: str


def _rows(file: str) -> list[list[str]]:
    with open(HERE / "facts" / file, encoding="utf-8", newline="") as f:
        rows = list(csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    for row in rows:
        if any(cell != cell.strip() or not cell for cell in row):
            raise ValueError(f"{file}: empty or padded cell in {row}")
    return rows


def _unique(what: str, values: list) -> None:
    twice = {v for v in values if values.count(v) > 1}
    if twice:
        raise ValueError(f"{what} more than once: {sorted(twice)}")


def countries() -> list[Country]:
    table = [Country(*row) for row in _rows("countries.tsv")]
    if len(table) != COUNTRY_COUNT:
        raise ValueError(f"{len(table)} countries, want {COUNTRY_COUNT}")
    for column in ("name", "capital", "nom", "capitale"):
        _unique(column, [getattr(c, column) for c in table])
    unknown = {c.continent for c in table} - set(CONTINENTS)
    if unknown:
        raise ValueError(f"unknown continents {unknown}")
    return table


def elements() -> list[Element]:
    table = [Element(int(row[0]), *row[1:]) for row in _rows("elements.tsv")]
    if [e.number for e in table] != list(range(1, 119)):
        raise ValueError("elements must be numbered 1 to 118 without a gap")
    for column in ("symbol", "name", "nom"):
        _unique(column, [getattr(e, column) for e in table])
    return table
