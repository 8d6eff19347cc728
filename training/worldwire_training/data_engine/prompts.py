"""The sentences that say what is in a scene, from a small vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from worldwire_training.data_engine.atmosphere import Colour

COATS: tuple[tuple[str, Colour], ...] = (
    ("red", (0.80, 0.18, 0.16)),
    ("yellow", (0.95, 0.76, 0.16)),
    ("blue", (0.16, 0.34, 0.72)),
    ("green", (0.16, 0.50, 0.30)),
    ("white", (0.93, 0.92, 0.90)),
    ("purple", (0.48, 0.24, 0.60)),
    ("orange", (0.92, 0.48, 0.14)),
)
HATS: tuple[Colour, ...] = ((0.30, 0.18, 0.12), (0.85, 0.30, 0.22), (0.92, 0.84, 0.62), (0.16, 0.22, 0.36))

CENTRES = {"well": "a well", "fountain": "a fountain", "oak": "an old oak", "statue": "a statue"}
LANDMARKS = {"church": "a church", "windmill": "a windmill", "tower": "a stone tower"}
TREES = {"pines": "tall pines", "oaks": "round oaks", "birches": "white birches", "poplars": "slim poplars"}
SMALL = ("a market stall", "a fence", "hay")
SEASON_WORDS = {"summer": "in summer", "autumn": "in autumn", "winter": "in snow"}
ROOF_COLOURS = ("red", "brown", "blue", "green", "orange")
TIME_WORDS = {"day": "by day", "dusk": "at dusk"}

WALL_COLOURS = ("white", "yellow", "green", "blue", "pink", "orange", "grey", "red")
FURNITURE = ("sofa", "bed", "table", "shelf", "desk", "chair", "plant", "rug", "lamp", "painting", "wardrobe")
FURNITURE_COLOURS = ("red", "blue", "green", "yellow", "grey", "orange", "purple", "white")
FLOORS = ("wooden floor", "tiled floor", "stone floor")

MAX_NAMED_THINGS = 3
WALKER = ", behind a walker in {article} {colour} coat"


def village_prompt(time_of_day: str, season: str, said: Mapping[str, str], rng: np.random.Generator) -> str:
    """One sentence about a village; `said` names its roofs, trees and what else stands there."""
    things = [CENTRES.get(said.get("centre", ""), ""), LANDMARKS.get(said.get("landmark", ""), "")]
    things += ["a pond" if "pond" in said else "", TREES[said["trees"]], said.get("small", "")]
    named = _choose([thing for thing in things if thing], rng)
    return (
        f"a village {TIME_WORDS[time_of_day]} {SEASON_WORDS[season]} with "
        f"{_list([said['roofs'] + ' roofs', *named])}"
    )


def rooms_prompt(
    time_of_day: str, walls: str, furniture: list[str], floor: str, rng: np.random.Generator
) -> str:
    """One sentence about rooms; `furniture` holds phrases such as 'a blue sofa'."""
    named = [_article(thing) for thing in _choose(furniture, rng)]
    return f"rooms {TIME_WORDS[time_of_day]} with {_list([walls + ' walls', *named, 'a ' + floor])}"


def third_person(prompt: str, coat: str) -> str:
    """The prompt of the same scene seen from behind the avatar."""
    return prompt + WALKER.format(article="an" if coat == "orange" else "a", colour=coat)


@cache
def prompt_vocabulary() -> tuple[str, ...]:
    """Every word that a prompt can hold, sorted."""
    phrases = [
        *CENTRES.values(),
        *LANDMARKS.values(),
        *TREES.values(),
        *SMALL,
        *SEASON_WORDS.values(),
        *TIME_WORDS.values(),
        *(name for name, _ in COATS),
        *ROOF_COLOURS,
        *WALL_COLOURS,
        *FURNITURE,
        *FURNITURE_COLOURS,
        *FLOORS,
        "behind walker in coat",
        "a an and village rooms with roofs walls pond",
    ]
    return tuple(sorted({word.strip(",") for phrase in phrases for word in phrase.split()} - {""}))


def _article(phrase: str) -> str:
    """'a orange rug' becomes 'an orange rug'."""
    return "an" + phrase[1:] if phrase.startswith("a orange") else phrase


def _choose(things: list[str], rng: np.random.Generator) -> list[str]:
    """At most three of the things, in their order."""
    count = min(len(things), int(rng.integers(MAX_NAMED_THINGS - 1, MAX_NAMED_THINGS + 1)))
    return [things[i] for i in sorted(rng.choice(len(things), count, replace=False))]


def _list(things: list[str]) -> str:
    return things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]
