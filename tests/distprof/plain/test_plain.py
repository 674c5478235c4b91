"""Tests of the decorator of frozen dataclasses: its classes do what those of dataclasses do."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from functools import cached_property
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from distprof import plain
from distprof.records import End
from distprof.records.fields import Bulky

NAN = float("nan")


class Apart:
    """Is equal to nothing."""

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 1


def classes(make: Callable[..., Callable[[type], type]]) -> SimpleNamespace:
    """Classes of every form that the project has, made by one decorator."""

    class Plain:
        """With a docstring."""

        KIND: ClassVar[str] = "plain"
        rank: int
        name: str = "x"
        parts: tuple[int, ...] = ()
        sums: dict[str, int] = dataclasses.field(default_factory=dict)

        @cached_property
        def twice(self) -> int:
            return 2 * self.rank

    class Undescribed:
        rank: int
        shown: int = dataclasses.field(default=1, repr=False)
        compared: int = dataclasses.field(default=2, compare=False)

    class Single:
        rank: float

    class ById:
        rank: int = 0

    class OfValues(Bulky):
        rank: int = 0

    class Empty:
        pass

    class Own(Apart):
        rank: int = 0

        def __repr__(self) -> str:
            return "own"

    by_id = {"ById", "OfValues"}
    found = {one.__name__: one for one in (Plain, Undescribed, Single, ById, OfValues, Empty, Own)}
    return SimpleNamespace(**{name: make(frozen=True, eq=name not in by_id)(one) for name, one in found.items()})


STANDARD, FAST = classes(dataclasses.dataclass), classes(plain.dataclass)


def outcome(work: Callable[[], Any]) -> Any:
    """Returns a result, or the kind of an error and what it says."""
    try:
        return work()
    except Exception as error:
        return type(error), str(error)


CALLS: dict[str, Callable[[Any], Any]] = {
    "fields": lambda of: [[(f.name, f.type, f.default) for f in dataclasses.fields(one)] for one in vars(of).values()],
    "repr": lambda of: repr([of.Plain(1, sums={"a": 1}), of.Undescribed(1, 2, 3), of.Own(), of.Empty()]),
    "equal": lambda of: [of.Plain(1) == of.Plain(1, "x"), of.Plain(1) == of.Plain(2), of.Empty() == of.Empty()],
    "others": lambda of: [of.Undescribed(1) == of.Plain(1), of.Undescribed(1) == 1],
    "compared": lambda of: [of.Undescribed(1, 2, 3) == of.Undescribed(1, 2, other) for other in (3, 4)],
    "not shown": lambda of: of.Undescribed(1, 2) == of.Undescribed(1, 3),
    "not a number": lambda of: [of.Single(NAN) == of.Single(NAN), of.Undescribed(NAN) == of.Undescribed(NAN)],
    "by id": lambda of: [of.ById() == of.ById(), of.OfValues() == of.OfValues(), of.Own() == of.Own()],
    "hash": lambda of: [*map(hash, (of.Undescribed(1, 2, 3), of.Single(1), of.Empty(), of.Own()))],
    "in a set": lambda of: len({of.Undescribed(1), of.Undescribed(1), of.Undescribed(2)}),
    "unhashable": lambda of: hash(of.Plain(1)),
    "unhashable values": lambda of: hash(of.OfValues()),
    "factory": lambda of: of.Plain(1).sums is of.Plain(1).sums,
    "default": lambda of: [of.Plain.name, vars(of.Plain(1)), hasattr(of.Plain, "sums")],
    "replace": lambda of: repr(dataclasses.replace(of.Plain(1, sums={"a": 1}), rank=3)),
    "dict": lambda of: dataclasses.asdict(of.Plain(1, parts=(1, 2))),
    "cached": lambda of: of.Plain(4).twice,
    "copy": lambda of: vars(copy.deepcopy(of.Plain(4, sums={"a": 1}))),
    "set": lambda of: setattr(of.Plain(1), "rank", 2),
    "set another": lambda of: setattr(of.ById(1), "other", 2),
    "delete": lambda of: delattr(of.Plain(1), "rank"),
    "match": lambda of: [one.__match_args__ for one in vars(of).values()],
    "description": lambda of: of.Plain.__doc__,
    "names": lambda of: [of.Plain.__init__.__name__, of.Plain.__init__.__qualname__.endswith("Plain.__init__")],
    "too few": lambda of: of.Plain(),
    "too many": lambda of: of.ById(1, 2),
    "unknown": lambda of: of.ById(unknown=1),
}


@pytest.mark.parametrize("call", CALLS)
def test_it_does_what_dataclasses_does(call: str) -> None:
    assert outcome(lambda: CALLS[call](FAST)) == outcome(lambda: CALLS[call](STANDARD))


def test_no_class_loses_its_place_in_a_pickle() -> None:
    end = End("exit", 3)
    assert pickle.loads(pickle.dumps(end)) == end and hash(end) == hash(copy.copy(end))


def test_it_refuses_what_it_cannot_do() -> None:
    def made(fields: dict[str, str], **values: Any) -> Callable[[], Any]:
        own = {"__annotations__": fields, "__module__": __name__, **values}
        return lambda: plain.dataclass(frozen=True)(type("One", (), own))

    assert outcome(made({"rank": "int"}))(1).rank == 1
    order = "One: a field without a default follows one with a default"
    assert outcome(made({"first": "int", "second": "int"}, first=1)) == (TypeError, order)
    for fields, values in (
        ({"rank": "int"}, {"__post_init__": print}),
        ({"rank": "int"}, {"rank": dataclasses.field(default=1, kw_only=True)}),
        ({"rank": "int"}, {"rank": dataclasses.field(default=1, init=False)}),
    ):
        assert outcome(made(fields, **values))[0] is TypeError
    with pytest.raises(TypeError, match="frozen"):
        plain.dataclass(frozen=False)


def test_classes_share_all_functions_but_init() -> None:
    one, other = FAST.Plain, FAST.Undescribed
    for name in ("__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"):
        assert getattr(one, name) is getattr(other, name) is not getattr(STANDARD.Plain, name)
    assert one.__init__ is not other.__init__


@plain.dataclass(frozen=True)
class Pair:
    KIND: ClassVar[str] = "pair"
    first: int
    second: int = 2

    @cached_property
    def total(self) -> int:
        return self.first + self.second


def test_replace_does_what_that_of_dataclasses_does() -> None:
    one = Pair(1)
    assert one.total == 3  # what was computed of one is not that of the other
    assert plain.replace(one, second=5) == dataclasses.replace(one, second=5) == Pair(1, 5)
    assert plain.replace(one, second=5).total == 6
    with pytest.raises(TypeError, match="no field 'third'"):
        plain.replace(one, third=1)  # type: ignore[call-arg]
