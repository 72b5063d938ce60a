"""An invented land, and what a small encyclopedia says about its towns, rivers, people, firms, books and bridges.

A fact is told in the passage of its subject and nowhere else. Some are left out, so that there are things that the
encyclopedia cannot tell: which ones are left out does not show in how a question or a claim about them is worded.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from words import NAMES

REGIONS = "Toldeth Marrenland Vishmoor Ostering Halvane Brennock Sundmark Corriden".split()
RIVERS = """
Ashka Brovel Cirrin Dessane Ervune Fessow Garrune Hullin Iskel Jessow Kirrane Lunnel Murrune Nissel Orrune Pirrin
Quenna Rissow
""".split()
LAKES = [f"Lake {name}" for name in "Dorrin Hestel Umberel Vintrow Sorrane Pallin Oskane Tembrin".split()]
HILLS = [f"{name} Hills" for name in "Hollin Greyfell Carrow Emberrow Larchen Ravell Stonnet Windle".split()]
TOWNS = (
    "Bel Bro Dar Eth Fal Gim Hes Jor Kal Lum Mor Nev Osk Pel Quor Ras Sil Tav Vas Wex Yor Zan".split(),
    "barrow brook cliff den gate hithe mouth stow thorpe wick".split(),
)
SURNAMES = (
    "Amb Brind Cald Dorv Esk Farn Gild Hask Ilv Jarr Kest Lomb Mirr Nold Orv Pell Quist Rand Stell Told Urm Vand Wist "
    "Yarl Zemb".split(),
    "ane ett ico mar olm oss ric une".split(),
)
FIRMS = (
    "Vel Bras Tam Cor Dun Gal Hep Kin Lor Mav Nor Pim Rol Sev Tur Zol".split(),
    "to ko lin da vex".split(),
    {
        "Mills": "flour", "Works": "pumps", "Foundry": "bells", "Looms": "linen", "Glassware": "lamps",
        "Press": "maps", "Shipyard": "ferries", "Kilns": "tiles", "Brewery": "beer", "Sawmill": "planks",
    },
)  # fmt: skip
TRADES = ["clockmaker", "printer", "glassblower", "weaver", "surveyor", "shipwright", "botanist", "engraver", "potter"]
GOODS = ["cheese", "pottery", "lace", "honey", "cider", "baskets", "knives", "wool", "salt", "violins", "paper"]
BOOKS = (
    "Silent Copper Hidden Ninth Paper Crooked Patient Winter Borrowed Hollow".split(),
    "Weir Orchard Compass Staircase Ferry Beehive Lantern Harbour Ledger Quarry".split(),
)
SUBJECTS = ["bees", "tides", "old roads", "mills", "birds", "clocks", "winter", "fishing", "maps", "bread", "stars"]
BRIDGES = """
Heron Willow Miller Raven Pilgrim Anchor Chestnut Falcon Garland Hatter Ivory Juniper Kestrel Linden Magpie Nettle
Otter Poplar Quartz Rowan Saddler Thistle Umber Vintner Walnut Yarrow Cobbler Drover Elder Fiddler
""".split()
STUFF = ["stone", "iron", "oak", "brick", "steel"]

# The sentence that tells a fact; the first one of each kind opens the passage and is never left out.
TOLD = {
    "region": {"side": "{t} is a region in the {v} of the country.", "largest": "Its largest town is {v}."},
    "town": {
        "region": "{t} is a town in the region of {v}.",
        "river": "{t} lies on the river {v}.",
        "goods": "The town is known for its {v}.",
    },
    "river": {
        "length": "The {t} is a river of {v} kilometres.",
        "source": "The {t} rises in the {v}.",
        "mouth": "It flows into {v}.",
    },
    "person": {
        "trade": "{t} was a {v}.",
        "birthplace": "{t} was born in {v}.",
        "year": "The year of birth is {v}.",
        "teacher": "As a child {t} was taught by {v}.",
    },
    "firm": {
        "product": "{t} is a firm that makes {v}.",
        "founder": "It was founded by {v}.",
        "seat": "{t} is based in {v}.",
        "year": "Business began in {v}.",
    },
    "book": {
        "subject": "{t} is a book about {v}.",
        "author": "It was written by {v}.",
        "year": "It was published in {v}.",
    },
    "bridge": {
        "stuff": "{t} is a bridge built of {v}.",
        "river": "{t} crosses the river {v}.",
        "designer": "It was designed by {v}.",
        "year": "It was opened in {v}.",
    },
}
# The first hop of a question: a thing named by another thing …
NAMED_BY = {
    ("town", "region"): "the region of {t}",
    ("town", "river"): "the river on which {t} lies",
    ("person", "birthplace"): "the town where {t} was born",
    ("person", "teacher"): "the teacher of {t}",
    ("firm", "founder"): "the founder of {t}",
    ("firm", "seat"): "the town where {t} is based",
    ("book", "author"): "the author of {t}",
    ("bridge", "river"): "the river that {t} crosses",
    ("bridge", "designer"): "the designer of {t}",
}
# … and the second: what is asked about it.
ASKED = {
    ("region", "largest"): "Which is the largest town of {x}?",
    ("town", "region"): "In which region is {x}?",
    ("town", "river"): "On which river is {x}?",
    ("town", "goods"): "For which goods is {x} known?",
    ("river", "source"): "In which hills does {x} rise?",
    ("river", "mouth"): "Into which lake flows {x}?",
    ("person", "trade"): "What was the trade of {x}?",
    ("person", "birthplace"): "In which town was {x} born?",
    ("person", "year"): "In which year was {x} born?",
    ("person", "teacher"): "Who was the teacher of {x}?",
}
CLAIMED = {
    ("region", "largest"): "{v} is the largest town of {t}.",
    ("town", "river"): "The river {v} flows through {t}.",
    ("town", "goods"): "{v} from {t} is well known.",
    ("river", "source"): "The source of the river {t} is in the {v}.",
    ("river", "mouth"): "The river {t} ends in {v}.",
    ("person", "birthplace"): "{v} is the birthplace of {t}.",
    ("person", "year"): "{t} was born in {v}.",
    ("person", "teacher"): "{t} was a pupil of {v}.",
    ("firm", "founder"): "{v} founded {t}.",
    ("firm", "seat"): "{t} has its seat in {v}.",
    ("firm", "year"): "{t} has been in business since {v}.",
    ("book", "author"): "{v} is the author of {t}.",
    ("book", "year"): "{t} came out in {v}.",
    ("bridge", "river"): "{t} leads over the river {v}.",
    ("bridge", "designer"): "{t} was planned by {v}.",
    ("bridge", "year"): "{t} was opened in {v}.",
}
LEFT_OUT = 0.3


@dataclass(frozen=True)
class Thing:
    """One entry: ``facts`` by relation; those in ``silent`` are not told, and have no value that counts."""

    kind: str
    title: str
    facts: dict[str, str]
    silent: frozenset[str]

    def told(self) -> dict[str, str]:
        """The facts that its passage tells."""
        return {relation: value for relation, value in self.facts.items() if relation not in self.silent}

    def passage(self) -> str:
        """What the encyclopedia says."""
        return " ".join(TOLD[self.kind][name].format(t=self.title, v=value) for name, value in self.told().items())


@cache
def world() -> dict[str, Thing]:
    """Every thing by its title."""
    rng = random.Random("promptopt world")
    made: dict[str, Thing] = {}

    def add(kind: str, title: str, **facts: str) -> None:
        others = list(facts)[1:]
        silent = frozenset(name for name in others if rng.random() < LEFT_OUT)
        made[title] = Thing(kind, title, facts, silent)

    towns = rng.sample([a + b for a in TOWNS[0] for b in TOWNS[1]], 48)
    surnames = rng.sample([a + b for a in SURNAMES[0] for b in SURNAMES[1]], 110)
    born = {f"{rng.choice(NAMES)} {surname}": rng.randint(1780, 1930) for surname in surnames}
    firms = rng.sample([f"{a}{b}" for a in FIRMS[0] for b in FIRMS[1]], 70)
    books = rng.sample([f"The {a} {b}" for a in BOOKS[0] for b in BOOKS[1]], 50)
    home = {town: REGIONS[i % len(REGIONS)] for i, town in enumerate(towns)}

    def somebody() -> tuple[str, str]:
        """A person, and a year of their working life."""
        person = rng.choice(list(born))
        return person, str(born[person] + rng.randint(22, 58))

    for region in REGIONS:
        side = rng.choice(["north", "south", "east", "west"])
        add("region", region, side=side, largest=rng.choice([town for town in towns if home[town] == region]))
    for town in towns:
        add("town", town, region=home[town], river=rng.choice(RIVERS), goods=rng.choice(GOODS))
    for river in RIVERS:
        add("river", river, length=str(rng.randint(40, 400)), source=rng.choice(HILLS), mouth=rng.choice(LAKES))
    for person, year in born.items():
        facts = {"trade": rng.choice(TRADES), "birthplace": rng.choice(towns), "year": str(year)}
        older = [one for one in born if 15 <= year - born[one] <= 60]
        add("person", person, **facts, **({"teacher": rng.choice(older)} if older else {}))
    for firm in firms:
        suffix, (founder, year) = rng.choice(list(FIRMS[2])), somebody()
        title, product = f"{firm.capitalize()} {suffix}", FIRMS[2][suffix]
        add("firm", title, product=product, founder=founder, seat=rng.choice(towns), year=year)
    for book in books:
        author, year = somebody()
        add("book", book, subject=rng.choice(SUBJECTS), author=author, year=year)
    for name in BRIDGES:
        designer, year = somebody()
        add("bridge", f"{name} Bridge", stuff=rng.choice(STUFF), river=rng.choice(RIVERS), designer=designer, year=year)
    return made


def values(kind: str, relation: str) -> list[str]:
    """All values that a relation has, told or not, each once."""
    return sorted(
        {thing.facts[relation] for thing in world().values() if thing.kind == kind and relation in thing.facts}
    )


def questions() -> Iterator[tuple[str, str, Thing, Thing]]:
    """(question, answer, the thing it begins with, the thing it is about): both passages are needed, and suffice."""
    for first in world().values():
        for relation, value in first.told().items():
            if (first.kind, relation) not in NAMED_BY:
                continue
            second = world()[value]
            about = NAMED_BY[first.kind, relation].format(t=first.title)
            for asked, answer in second.told().items():
                # The largest town of a town's region may be the town itself: the question would give its answer away.
                if (second.kind, asked) in ASKED and answer != first.title:
                    yield ASKED[second.kind, asked].format(x=about), answer, first, second
