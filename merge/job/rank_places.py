"""Coordinates of the ranks that recorded none, from the order of the other ranks on the axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import permutations

from distprof.records import expert_position

#: The usual order, fastest axis first: it is tried first, and used where no order fits the known ranks.
_USUAL = ("tp", "cp", "dp", "pp")

Place = dict[str, int]


def places_by_order(ranks: Iterable[int], known: Mapping[int, Place], sizes: Mapping[str, int]) -> dict[int, Place]:
    """Returns the known places, and for the other ``ranks`` the places that the order of the known ones gives.

    ``known`` is not empty.  A coordinate that does not follow from the order (an ep axis that fits no rule) is 0.
    """
    fitting = (order for order in permutations(_USUAL) if all(_fits(order, *one, sizes) for one in known.items()))
    order = next(fitting, _USUAL)
    ep = all(place["ep"] == _expert_place(place, sizes) for place in known.values())
    return {rank: known[rank] if rank in known else _placed(order, rank, sizes, ep=ep) for rank in ranks}


def _along(order: Iterable[str], rank: int, sizes: Mapping[str, int]) -> Place:
    place, rest = {}, rank
    for axis in order:
        place[axis], rest = rest % sizes[axis], rest // sizes[axis]
    return place


def _fits(order: Iterable[str], rank: int, place: Place, sizes: Mapping[str, int]) -> bool:
    return all(place[axis] == number for axis, number in _along(order, rank, sizes).items())


def _placed(order: Iterable[str], rank: int, sizes: Mapping[str, int], *, ep: bool) -> Place:
    place = dict.fromkeys(sizes, 0) | _along(order, rank, sizes)
    place["mp"] = place["pp"] * sizes["tp"] + place["tp"]
    return place | ({"ep": _expert_place(place, sizes)} if ep else {})


def _expert_place(place: Place, sizes: Mapping[str, int]) -> int:
    _, coordinate = expert_position(place, sizes)
    return coordinate
