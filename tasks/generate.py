"""The data of the tasks in this folder, made by rules from our own word lists.

python tasks/generate.py            writes every task's data again, byte for byte
python tasks/generate.py plural     only that one's
"""

import json
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from words import (
    ANIMALS,
    ANTONYMS,
    CITIES,
    COMMANDS,
    FRUIT,
    INVENTIONS,
    IRREGULAR_PAST,
    IRREGULAR_PLURALS,
    KINDS,
    NAMES,
    NOTES,
    NOUNS,
    OTHER_THINGS,
    REFUNDS,
    ROOMS,
    SENTIMENT,
    TICKETS,
    TITLES,
    VERBS,
    WEEKDAYS,
)
from world import CLAIMED, questions, values, world
from writing import rows as constrained_rows

Row = dict[str, Any]
HERE = Path(__file__).resolve().parent
SMALL_WORDS = {"a", "an", "the", "of", "and", "in", "on", "to", "for", "at", "by", "with"}


def plural(rng: random.Random) -> Iterable[Row]:
    for word in NOUNS + list(IRREGULAR_PLURALS):
        yield {"word": word, "plural": plural_of(word)}


def plural_of(word: str) -> str:
    if word in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def past_tense(rng: random.Random) -> Iterable[Row]:
    for verb in VERBS + list(IRREGULAR_PAST):
        yield {"verb": verb, "past": past_of(verb)}


def past_of(verb: str) -> str:
    if verb in IRREGULAR_PAST:
        return IRREGULAR_PAST[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + "ed"


ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()


def words_of(n: int) -> str:
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f"-{ONES[n % 10]}" if n % 10 else "")
    if n < 1000:
        return f"{ONES[n // 100]} hundred" + (f" and {words_of(n % 100)}" if n % 100 else "")
    rest = n % 1000
    joint = " and " if 0 < rest < 100 else " "
    return f"{words_of(n // 1000)} thousand" + (f"{joint}{words_of(rest)}" if rest else "")


def number_words(rng: random.Random) -> Iterable[Row]:
    numbers = rng.sample(range(20, 100), 50) + rng.sample(range(100, 1000), 300) + rng.sample(range(1000, 20000), 450)
    for n in numbers:
        yield {"number": str(n), "words": words_of(n)}


def second_letter(rng: random.Random) -> Iterable[Row]:
    for word in sorted(set(NOUNS + VERBS + list(IRREGULAR_PAST))):
        yield {"word": word, "letter": word[1]}


def title_case(rng: random.Random) -> Iterable[Row]:
    adjectives, nouns, places = TITLES
    for _ in range(3000):
        form = rng.choice(["the {a} {n} of the {p}", "a {n} in the {p}", "{a} {n} and {n2}", "the {n} by the {p}"])
        text = form.format(a=rng.choice(adjectives), n=rng.choice(nouns), n2=rng.choice(nouns), p=rng.choice(places))
        words = text.split()
        title = [w if i and w in SMALL_WORDS else w.capitalize() for i, w in enumerate(words)]
        yield {"phrase": text, "title": " ".join(title)}


def units(rng: random.Random) -> Iterable[Row]:
    table = [
        ("km", "m", 1000), ("m", "cm", 100), ("cm", "mm", 10), ("kg", "g", 1000), ("l", "ml", 1000),
        ("hours", "minutes", 60), ("minutes", "seconds", 60), ("days", "hours", 24), ("weeks", "days", 7),
        ("tonnes", "kg", 1000),
    ]  # fmt: skip
    for _ in range(3000):
        big, small, factor = rng.choice(table)
        halves = rng.randint(1, 60)
        amount = halves // 2 if halves % 2 == 0 else halves / 2
        yield {"quantity": f"{amount:g} {big} in {small}", "value": f"{amount * factor:g}"}


def antonyms(rng: random.Random) -> Iterable[Row]:
    accepted: dict[str, list[str]] = {}
    for pair in ANTONYMS:
        a, b = pair.split(":")
        for one, others in ((a, b.split("/")), *((o, [a]) for o in b.split("/"))):
            known = accepted.setdefault(one, [])
            known.extend(word for word in others if word not in known)
    for word, opposites in accepted.items():
        yield {"word": word, "antonyms": opposites}


def larger_animal(rng: random.Random) -> Iterable[Row]:
    yield from _pairs(rng, ANIMALS, 1.6, lambda a, b: a if ANIMALS[a] > ANIMALS[b] else b, "animals", "larger")


def older_invention(rng: random.Random) -> Iterable[Row]:
    yield from _pairs(
        rng, INVENTIONS, None, lambda a, b: a if INVENTIONS[a] < INVENTIONS[b] else b, "inventions", "older"
    )


def _pairs(
    rng: random.Random, table: dict[str, float], ratio: float | None, answer: Callable[[str, str], str], q: str, a: str
) -> Iterable[Row]:
    names = list(table)
    seen = set()
    while len(seen) < 900:
        one, two = rng.sample(names, 2)
        if frozenset((one, two)) in seen:
            continue
        big, small = max(table[one], table[two]), min(table[one], table[two])
        seen.add(frozenset((one, two)))
        # Pairs too close to call are left out.
        if (ratio is not None and big / small < ratio) or (ratio is None and big - small < 15):
            continue
        yield {q: f"{one}, {two}", a: answer(one, two)}


def sentiment(rng: random.Random) -> Iterable[Row]:
    subjects, good, bad, turns = SENTIMENT
    for _ in range(4000):
        mood = rng.choice(["positive", "negative"])
        right, wrong = (good, bad) if mood == "positive" else (bad, good)
        subject, other = rng.sample(subjects, 2)
        form = rng.choice(turns)
        text = form.format(s=subject, o=other, main=rng.choice(right), main2=rng.choice(right), but=rng.choice(wrong))
        yield {"review": text[0].upper() + text[1:], "sentiment": mood}


def ticket_routing(rng: random.Random) -> Iterable[Row]:
    openings, teams, closings = TICKETS
    for _ in range(6000):
        team = rng.choice(list(teams))
        form = rng.choice(teams[team])
        text = form.format(name=rng.choice(NAMES), city=rng.choice(CITIES), n=rng.randint(2, 30), d=rng.randint(2, 9))
        whole = " ".join(part for part in (rng.choice(openings), text, rng.choice(closings)) if part)
        yield {"ticket": whole, "team": team}


def odd_one_out(rng: random.Random) -> Iterable[Row]:
    for _ in range(3000):
        usual, other = rng.sample(list(KINDS), 2)
        words = [*rng.sample(KINDS[usual], 3), odd := rng.choice(KINDS[other])]
        rng.shuffle(words)
        yield {"words": ", ".join(words), "odd": odd}


def house_command(rng: random.Random) -> Iterable[Row]:
    for _ in range(9000):
        about = rng.choice(list(COMMANDS))
        text = rng.choice(COMMANDS[about]).format(
            room=rng.choice(ROOMS), n=rng.randint(2, 30), name=rng.choice(NAMES), day=rng.choice(WEEKDAYS),
            hour=f"{rng.randint(6, 22)}:{rng.choice(['00', '15', '30', '45'])}",
        )  # fmt: skip
        yield {"said": text, "about": about}


def clock(rng: random.Random) -> Iterable[Row]:
    for _ in range(6000):
        hour, minute = rng.randrange(24), 5 * rng.randrange(12)
        yield {"words": f"{rng.choice(spoken(hour, minute))} {part_of_day(hour)}", "time": f"{hour:02}:{minute:02}"}


def spoken(hour: int, minute: int) -> list[str]:
    """Ways to say a time, a multiple of five minutes, without the part of the day."""
    this, following = (words_of((h - 1) % 12 + 1) for h in (hour, hour + 1))
    if minute == 0:
        return [f"{this} o'clock", f"{this} sharp"]
    past, to = words_of(minute), words_of(60 - minute)
    if minute == 15:
        return [f"a quarter past {this}", f"quarter past {this}", f"{this} {past}"]
    if minute == 30:
        return [f"half past {this}", f"{this} {past}"]
    if minute == 45:
        return [f"a quarter to {following}", f"quarter to {following}", f"{this} {past.replace('-', ' ')}"]
    if minute < 30:
        return [f"{past} past {this}", f"{past} minutes past {this}"]
    return [f"{to} to {following}", f"{to} minutes to {following}"]


def part_of_day(hour: int) -> str:
    """What people add to a time on a clock of twelve hours."""
    for end, part in ((5, "at night"), (12, "in the morning"), (18, "in the afternoon"), (22, "in the evening")):
        if hour < end:
            return part
    return "at night"


def word_problems(rng: random.Random) -> Iterable[Row]:
    things = ["apples", "coins", "stickers", "pencils", "books", "shells", "cards", "marbles"]
    for _ in range(4000):
        name, other = rng.sample(NAMES, 2)
        thing, a, b, c = rng.choice(things), rng.randint(3, 40), rng.randint(2, 12), rng.randint(2, 9)
        text, answer = rng.choice(
            [
                (f"{name} has {a + b} {thing} and gives {b} to {other}. How many {thing} does {name} have left?", a),
                (f"{name} buys {b} boxes with {c} {thing} in each. How many {thing} is that?", b * c),
                (
                    f"{name} has {a} {thing}. {other} has {b} more than {name}. How many {thing} do they have together?",
                    2 * a + b,
                ),
                (f"{name} shares {b * c} {thing} equally among {c} friends. How many does each friend get?", b),
                (
                    f"{name} had {a} {thing}, found {b} more and then lost {min(c, a)}. How many {thing} are there now?",
                    a + b - min(c, a),
                ),
            ]
        )
        yield {"problem": text, "answer": str(answer)}


def extract_order(rng: random.Random) -> Iterable[Row]:
    items = [plural_of(word) for word in NOUNS[:80]]
    for _ in range(4000):
        name, city, item, n = rng.choice(NAMES), rng.choice(CITIES), rng.choice(items), rng.randint(2, 60)
        text = rng.choice(
            [
                f"Hi, this is {name} from {city}. Please send me {n} {item}.",
                f"{name} would like to order {n} {item}, to be delivered to {city}.",
                f"We need {n} {item} in our {city} office by Friday. Regards, {name}",
                f"Order for {city}: {n} {item}. Ask for {name} at the door.",
                f"Could you ship {n} {item} to {city}? My name is {name}.",
            ]
        )
        yield {"message": text, "order": {"name": name, "city": city, "item": item, "count": n}}


def find_fruit(rng: random.Random) -> Iterable[Row]:
    for _ in range(4000):
        fruit = rng.sample(FRUIT, rng.randint(1, 4))
        things = rng.sample(OTHER_THINGS, rng.randint(1, 3))
        mixed = fruit + things
        rng.shuffle(mixed)
        text = rng.choice(
            ["On the table: {}.", "She packed {}.", "The shopping list says {}.", "In the picture I can see {}."]
        ).format(", ".join(mixed[:-1]) + f" and {mixed[-1]}")
        yield {"text": text, "fruit": sorted(fruit)}


def two_hop(rng: random.Random) -> Iterable[Row]:
    rows = [
        {"question": question, "answer": answer, "passages": [first.title, second.title]}
        for question, answer, first, second in questions()
    ]
    rng.shuffle(rows)
    yield from rows


def corpus() -> list[Row]:
    return [{"title": thing.title, "text": thing.passage()} for thing in world().values()]


def verify_claim(rng: random.Random) -> Iterable[Row]:
    left = {"supported": 234, "refuted": 233, "not enough": 233}
    seen = set()
    while any(left.values()):
        claim, verdict, about = _comparison(rng) if rng.random() < 0.2 else _claim(rng)
        if left[verdict] and claim not in seen:
            seen.add(claim)
            left[verdict] -= 1
            yield {"claim": claim, "verdict": verdict, "passages": about}


def _claim(rng: random.Random) -> tuple[str, str, list[str]]:
    thing = rng.choice(list(world().values()))
    relation = rng.choice([name for name in thing.facts if (thing.kind, name) in CLAIMED])
    value = true = thing.facts[relation]
    # What is not told is claimed with right and wrong values too: nothing but the passage gives the verdict away.
    if rng.random() < 0.5:
        value = rng.choice([one for one in values(thing.kind, relation) if one not in (true, thing.title)])
    text = CLAIMED[thing.kind, relation].format(t=thing.title, v=value)
    verdict = "not enough" if relation in thing.silent else "supported" if value == true else "refuted"
    return text[0].upper() + text[1:], verdict, [thing.title]


def _comparison(rng: random.Random) -> tuple[str, str, list[str]]:
    kind, relation, form = rng.choice(
        [
            ("person", "year", "{} was born before {}."),
            ("town", "river", "{} and {} are on the same river."),
            ("firm", "year", "{} has been in business for longer than {}."),
        ]
    )
    things = [thing for thing in world().values() if thing.kind == kind]
    one, two = rng.sample(things, 2)
    # By chance two towns are hardly ever on one river; two people of one year are no fair question.
    alike = kind == "town" and rng.random() < 0.5
    while (one.facts[relation] == two.facts[relation]) != alike:
        one, two = rng.sample(things, 2)
    a, b = one.facts[relation], two.facts[relation]
    true = a == b if kind == "town" else int(a) < int(b)
    silent = relation in one.silent or relation in two.silent
    verdict = "not enough" if silent else "supported" if true else "refuted"
    return form.format(one.title, two.title), verdict, [one.title, two.title]


def revise(rng: random.Random) -> Iterable[Row]:
    items = [plural_of(word) for word in NOUNS[:80]]
    for _ in range(4000):
        note, message, names = rng.choice(NOTES)
        hour, minute = rng.randint(8, 19), rng.choice(["15", "30", "45"])
        slots = {
            "name": rng.choice(NAMES), "day": rng.choice(WEEKDAYS), "city": rng.choice(CITIES),
            "time": f"{hour}:{minute}", "n": str(rng.randint(2, 60)), "euros": str(rng.randint(15, 980)),
            "number": str(rng.randint(1000, 9999)), "items": rng.choice(items), "thing": rng.choice(NOUNS[:80]),
        }  # fmt: skip
        facts = [slots[name] for name in names.split()]
        yield {"note": note.format(**slots), "message": message.format(**slots), "to": slots["name"], "facts": facts}


def priority_of(dollars: int, days: int) -> str:
    if dollars >= 1000 or days >= 30:
        return "urgent"
    return "later" if dollars < 100 and days < 10 else "soon"


def triage(rng: random.Random) -> Iterable[Row]:
    sums = [range(12, 100), range(100, 1000, 5), range(1000, 5000, 50)]
    waits = [range(2, 10), range(10, 29), [30, 35, 42, 45, 60, 90]]
    for i in range(4000):
        wanted = ("urgent", "soon", "later")[i % 3]
        dollars, days = rng.choice(rng.choice(sums)), rng.choice(rng.choice(waits))
        while priority_of(dollars, days) != wanted:
            dollars, days = rng.choice(rng.choice(sums)), rng.choice(rng.choice(waits))
        amount, waiting = rng.choice(spellings_of_dollars(dollars)), rng.choice(spellings_of_days(days))
        number = rng.randint(10000, 99999)
        text = rng.choice(REFUNDS).format(name=rng.choice(NAMES), number=number, amount=amount, waiting=waiting)
        yield {
            "message": text, "priority": wanted,
            "amount": amount, "waiting": waiting, "dollars": dollars, "days": days,
        }  # fmt: skip


def spellings_of_dollars(n: int) -> list[str]:
    out = [f"${n:,}", f"{n} dollars", f"USD {n}.00", f"{words_of(n)} dollars", f"{n} bucks"]
    if n >= 1000 and n % 100 == 0:
        out += [f"{n / 1000:g}k dollars", f"${n / 1000:g}k"]
    if 1000 < n < 2000 and n % 100 == 0:
        out.append(f"{words_of(n // 100)} hundred dollars")
    return out


def spellings_of_days(n: int) -> list[str]:
    out = [f"{n} days", f"{words_of(n)} days"]
    if n % 7 == 0:
        out += ["a week", "one whole week"] if n == 7 else [f"{words_of(n // 7)} weeks", f"{n // 7} weeks"]
    if n == 14:
        out.append("a fortnight")
    if n % 30 == 0:
        out += ["a month", "one month"] if n == 30 else [f"{words_of(n // 30)} months", f"{n // 30} months"]
    if n == 45:
        out += ["a month and a half", "one and a half months"]
    return out


def constrained(rng: random.Random) -> Iterable[Row]:
    yield from constrained_rows(rng)


TASKS: dict[str, Callable[[random.Random], Iterable[Row]]] = {
    make.__name__: make
    for make in (
        plural, past_tense, number_words, second_letter, title_case, units, antonyms, larger_animal,
        older_invention, sentiment, ticket_routing, word_problems, extract_order, find_fruit,
        two_hop, verify_claim, revise, triage, constrained, odd_one_out, house_command,
        clock,
    )
}  # fmt: skip
BESIDE: dict[str, dict[str, Callable[[], list[Row]]]] = {"two_hop": {"corpus.jsonl": corpus}}
MOST = 700
TEST = 0.36


def rows_of(name: str) -> tuple[list[Row], list[Row]]:
    """(train, test): no two rows with equal inputs, in random order, at most 700 in all."""
    rng = random.Random(f"promptopt {name}")
    unique: dict[str, Row] = {}
    for row in TASKS[name](rng):
        unique.setdefault(str(next(iter(row.values()))).lower(), row)
    rows = list(unique.values())
    rng.shuffle(rows)
    rows = rows[:MOST]
    held = int(len(rows) * TEST)
    return rows[held:], rows[:held]


def lines(rows: list[Row]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main(names: list[str]) -> None:
    """Write the data of these tasks, or of all."""
    for name in names or TASKS:
        folder = HERE / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        train, test = rows_of(name)
        (folder / "train.jsonl").write_text(lines(train), encoding="utf-8")
        (folder / "test.jsonl").write_text(lines(test), encoding="utf-8")
        for file, make in BESIDE.get(name, {}).items():
            (folder / file).write_text(lines(make()), encoding="utf-8")
        print(f"{name}: {len(train)} train, {len(test)} test")


if __name__ == "__main__":
    main(sys.argv[1:])
