"""Indirect objects that two people compete for (docs/method.md#tasks).

``Robert needed brush, Kelly wanted pan, Daniel handed brush to`` is answered by `` Robert``. The corruption hands the
other object over, so that its answer is the other person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from circuitdrift.tasks.encoding import Encoding
from circuitdrift.tasks.examples import Candidate, Query, Streams
from circuitdrift.tasks.task import Task

_NAMES = """
Adam Alan Alex Alice Andrew Anna Anne Ben Bill Bob Brian Carl Carol Chris Clara Daniel David Edward Ellen Emily Emma
Eric Frank George Grace Harry Helen Henry Jack James Jane Jason Jean Jeff Jim Joe John Julia Karen Kate Kelly Kevin
Laura Lisa Louis Lucy Maria Mark Martin Mary Max Michael Mike Nancy Paul Peter Richard Robert Rose Ruth Ryan Sam
Sarah Scott Simon Steve Susan Tim Tom
"""
_OBJECTS = """
apple bag ball basket bell bike boat book bottle bowl box bread brush bucket cake camera candle cap card chain chair
clock cloth coat cup desk dress drum flag flower fork glass glove guitar hammer hat jar key knife ladder lamp map
milk mirror mug needle net pan paper pen pencil phone pipe plate pot ring rope ruler shirt shoe soap spoon sword
table tent ticket towel toy wheel wire
"""

NAMES = tuple(_NAMES.split())
OBJECTS = tuple(_OBJECTS.split())

PLACES = ("first", "second")
"""Which of the two people gets the object, by the order in which they come."""

_SCENES_FOR_EACH_EXAMPLE = 20
"""Scenes that are drawn for each example asked for; more than enough to find those that fit."""

FEWEST_NAMES = 3
"""A scene has two people who want an object, and one who hands one over."""


class ComplexIoiTask(Task):
    """Which of two people gets the object that is handed over; the corruption hands over the other one's."""

    family: Literal["complex_ioi"]

    def candidates(self, random: Random, encoding: Encoding) -> Streams:
        """Scenes with names and objects that ``encoding`` accepts as answers; either person is right equally often."""
        names, objects = ([word for word in words if encoding.accepts(f" {word}")] for words in (NAMES, OBJECTS))
        if len(names) < FEWEST_NAMES or len(objects) < len(PLACES):
            return dict.fromkeys(PLACES, ())
        n_scenes = _SCENES_FOR_EACH_EXAMPLE * self.asked
        return {place: _stream(place, Random(random.random()), names, objects, n_scenes) for place in PLACES}


@dataclass(frozen=True)
class Scene:
    """Two people with the object that each wants, and the person who hands one over."""

    people: tuple[str, str]
    objects: tuple[str, str]
    giver: str

    def query(self, place: str) -> Query:
        """The prompt in which the object of the first or the second person is handed over."""
        (one, other), (wanted, other_wanted) = self.people, self.objects
        number = PLACES.index(place)
        handed = f"{self.giver} handed {self.objects[number]} to"
        return Query(f"{one} needed {wanted}, {other} wanted {other_wanted}, {handed}", f" {self.people[number]}")


def candidate(scene: Scene, place: str) -> Candidate:
    """A scene with one object handed over; the same scene with the other one stays in the same split."""

    def corruptions(random: Random) -> Iterator[Query]:
        yield scene.query(PLACES[1 - PLACES.index(place)])

    return Candidate(scene.query(place), corruptions, group=scene)


def _stream(place: str, random: Random, names: list[str], objects: list[str], n_scenes: int) -> Iterator[Candidate]:
    for _ in range(n_scenes):
        one, other, giver = random.sample(names, 3)
        first, second = random.sample(objects, 2)
        yield candidate(Scene((one, other), (first, second), giver), place)
