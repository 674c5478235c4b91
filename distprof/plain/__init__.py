"""Frozen dataclasses that are quick to make: a merge makes two hundred, which was a third of the time of a small one.

:func:`dataclasses.dataclass` compiles up to six functions for each class.  The decorator here compiles ``__init__``
alone, once for all classes with as many fields, and puts the names of each class in; the other functions do the same as
those of dataclasses, and all classes share them.  What differs between classes is made when a class is first used,
because a merge uses half of them; what :func:`dataclasses.fields` returns is made when it is first asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass", "is_dataclass", "metadata_of", "replace"]

_set = object.__setattr__
_UNSET = object()  # in place of an argument: the field's factory makes the value
_REQUIRED = dataclasses.MISSING


def _repr(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: Any) -> bool:
    own = type(self)
    return own.__values__(self) == own.__values__(other) if type(other) is own else NotImplemented


def _hash(self: Any) -> int:
    return hash(type(self).__values__(self))


def _refuse_to_set(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


_SHARED = {"__repr__": _repr, "__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
_OF_VALUES = {"__eq__": _eq, "__hash__": _hash}


class _Later:
    """An attribute that a class gets when somebody first asks for it: ``make`` sets it."""

    def __init__(self, name: str, make: Callable[[Any], None]) -> None:
        self._name = name
        self._make = make

    def __get__(self, instance: object, owner: type) -> Any:
        home = next(cls for cls in owner.__mro__ if vars(cls).get(self._name) is self)
        self._make(home)
        return getattr(owner if instance is None else instance, self._name)


def _make_fields(cls: Any) -> None:
    """Sets what the functions of :mod:`dataclasses` look at."""
    _ = cls.__names__  # which is made from what dataclasses takes away
    del cls.__dataclass_fields__
    dataclasses.dataclass(init=False, repr=False, eq=False)(cls)


def _make_functions(cls: Any) -> None:
    """Sets ``__init__``, and what the shared functions look at.  Raises TypeError for what only dataclasses can do."""
    given = _given(cls)
    names = tuple(given)
    compared = [name for name, value in given.items() if not isinstance(value, dataclasses.Field) or value.compare]
    cls.__init__ = _init(cls, given)
    cls.__names__ = given
    cls.__match_args__ = names  # type: ignore[misc]
    cls.__values__ = attrgetter(*compared) if len(compared) > 1 else staticmethod(_few_values(compared))


def _few_values(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda instance: tuple(getattr(instance, name) for name in names)


_LATER = {
    **{name: _Later(name, _make_functions) for name in ("__init__", "__names__", "__match_args__", "__values__")},
    "__dataclass_fields__": _Later("__dataclass_fields__", _make_fields),
}


def _made(cls: type, eq: bool) -> type:
    own = vars(cls)
    if not own.get("__doc__"):
        cls.__doc__ = cls.__name__  # else dataclasses makes one from the signature, which takes longer than the class
    functions = {**_SHARED, **(_OF_VALUES if eq and "__eq__" not in own else {})}
    for name, function in functions.items():
        if own.get(name) is None:
            setattr(cls, name, function)
    for name, later in _LATER.items():
        setattr(cls, name, later)
    return cls


def _given(cls: type) -> dict[str, Any]:
    """Returns the fields in their order, those of bases first, each with its default, its Field, or MISSING."""
    given: dict[str, Any] = {}
    for base in cls.__mro__[-1:0:-1]:
        if "__dataclass_fields__" in vars(base):
            given |= _names_of(base)
    own = vars(cls)
    for name, annotation in own.get("__annotations__", {}).items():
        if not str(annotation).removeprefix("typing.").startswith("ClassVar"):
            given[name] = own.get(name, _REQUIRED)
    return given


def _names_of(cls: Any) -> dict[str, Any]:
    """Returns :func:`_given` of a class that may be one of dataclasses."""
    if "__names__" in vars(cls):
        names: dict[str, Any] = cls.__names__
        return names
    return {field.name: field for field in dataclasses.fields(cls)}


def _init(cls: type, given: Mapping[str, Any]) -> Callable[..., None]:
    """Returns the ``__init__`` of a class.  Raises TypeError for what only :mod:`dataclasses` can do."""
    defaults = [_default(cls, value) for value in given.values()]
    required = defaults.count(_REQUIRED)
    if _REQUIRED in defaults[required:]:
        raise TypeError(f"{cls.__qualname__}: a field without a default follows one with a default")
    code, first = _compiled(tuple([default is _UNSET for default in defaults]))
    constants = (*code.co_consts[:first], *given, *code.co_consts[first + len(given) :])
    own = code.replace(co_consts=constants, co_varnames=("self", *given))
    init = FunctionType(own, globals(), "__init__", tuple(defaults[required:]))
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _default(cls: type, given: Any) -> Any:
    """Returns the default of a field, _REQUIRED if it has none, _UNSET if its factory makes it."""
    is_plain = not isinstance(given, dataclasses.Field)
    if hasattr(cls, "__post_init__") or not (is_plain or (given.init and given.kw_only is not True)):
        raise TypeError(f"{cls.__qualname__}: __init__ takes all fields by position, and does no more than set them")
    if is_plain:
        return given
    return given.default if given.default_factory is dataclasses.MISSING else _UNSET


@cache
def _compiled(has_factory: tuple[bool, ...]) -> tuple[CodeType, int]:
    """Returns the code that all classes with as many fields share, and where its constants have the fields' names."""
    places = [f"_{place}" for place in range(len(has_factory))]
    values = [f"_new(self, {name!r}) if {name} is _UNSET else {name}" for name in places]
    lines = [
        f"_set(self, {name!r}, {value if made else name})"
        for name, value, made in zip(places, values, has_factory, strict=True)
    ]
    space: dict[str, Any] = {}
    exec(f"def __init__({', '.join(['self', *places])}):\n " + "\n ".join(lines or ["pass"]), space)
    code: CodeType = space["__init__"].__code__
    return code, code.co_consts.index("_0") if places else 0


def _new(instance: Any, name: str) -> Any:
    """Returns what the factory of a field makes."""
    return instance.__names__[name].default_factory()


def is_dataclass(cls: Any) -> bool:
    """Returns whether a class is a dataclass, of either kind: without making the fields of one of ours."""
    return hasattr(cls, "__names__") or dataclasses.is_dataclass(cls)


def metadata_of(cls: Any) -> dict[str, Mapping[Any, Any]]:
    """Returns the metadata of each field of a dataclass by name: sooner than :func:`dataclasses.fields` would."""
    return {
        name: value.metadata if isinstance(value, dataclasses.Field) else {} for name, value in _names_of(cls).items()
    }


if TYPE_CHECKING:
    from dataclasses import dataclass, replace  # what type checkers know
else:

    def replace(instance: Any, **changes: Any) -> Any:
        """Returns a copy with some fields changed, as that of :mod:`dataclasses`: a third of the time."""
        values = vars(instance)
        names = type(instance).__names__
        if not changes.keys() <= names.keys():
            raise TypeError(f"{type(instance).__qualname__} has no field {min(changes.keys() - names.keys())!r}")
        made = object.__new__(type(instance))
        vars(made).update({name: values[name] for name in names} | changes)
        return made

    def dataclass(*, frozen: bool, eq: bool = True) -> Callable[[type], type]:
        """Makes a class a dataclass that refuses changes; with ``eq``, instances of equal values are equal."""
        if not frozen:
            raise TypeError("this decorator makes frozen dataclasses only: take that of dataclasses")
        return lambda cls: _made(cls, eq)
