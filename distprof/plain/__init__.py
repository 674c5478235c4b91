"""Frozen dataclasses that are quick to make: a merge makes two hundred, which was a third of the time of a small one.

:func:`dataclasses.dataclass` compiles up to six functions for each class.  The decorator here compiles ``__init__``
alone, once for all classes with as many fields, and puts the names of each class in; the other functions do the same as
those of dataclasses, and all classes share them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass", "replace"]

_Field = dataclasses.Field[Any]
_set = object.__setattr__
_UNSET = object()  # in place of an argument: the field's factory makes the value


def _repr(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: Any) -> bool:
    own = type(self)
    return own.__values__(self) == own.__values__(other) if type(other) is own else NotImplemented


def _hash(self: Any) -> int:
    return hash(type(self).__values__(self))


def _values_of(cls: type) -> Callable[[Any], tuple[Any, ...]]:
    """Returns what gets the values of an instance that are compared."""
    names = [field.name for field in dataclasses.fields(cls) if field.compare]
    if len(names) > 1:
        return attrgetter(*names)
    return staticmethod(lambda instance: tuple(getattr(instance, name) for name in names))


def _refuse_to_set(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


_SHARED = {"__repr__": _repr, "__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
_OF_VALUES = {"__eq__": _eq, "__hash__": _hash}


def _made(cls: type, eq: bool) -> type:
    own = vars(cls)
    if not own.get("__doc__"):
        cls.__doc__ = cls.__name__  # else dataclasses makes one from the signature, which takes longer than the class
    functions = {**_SHARED, **(_OF_VALUES if eq and "__eq__" not in own else {})}
    missing: dict[str, Any] = {name: function for name, function in functions.items() if own.get(name) is None}
    dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    for name, function in (missing | {"__init__": _init(cls), "__values__": _values_of(cls)}).items():
        setattr(cls, name, function)
    cls.__names__ = dict.fromkeys(field.name for field in dataclasses.fields(cls))  # type: ignore[attr-defined]
    return cls


def _init(cls: type) -> Callable[..., None]:
    """Returns the ``__init__`` of a class.  Raises TypeError for what only :mod:`dataclasses` can do."""
    fields: tuple[_Field, ...] = dataclasses.fields(cls)
    optional = _with_default(cls, fields)
    code, places = _compiled(tuple(map(_has_factory, fields)))
    names = dict(zip(places, (field.name for field in fields), strict=True))
    constants = tuple(names.get(value, value) if type(value) is str else value for value in code.co_consts)
    own = code.replace(co_consts=constants, co_varnames=tuple(names.get(name, name) for name in code.co_varnames))
    defaults = tuple(_UNSET if _has_factory(field) else field.default for field in optional)
    init = FunctionType(own, globals(), "__init__", defaults)
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


@cache
def _compiled(has_factory: tuple[bool, ...]) -> tuple[CodeType, list[str]]:
    """Returns the code that all classes with as many fields share, and its names in the place of those of fields."""
    places = [f"_{place}" for place in range(len(has_factory))]
    values = [f"_new(self, {name!r}) if {name} is _UNSET else {name}" for name in places]
    lines = [
        f"_set(self, {name!r}, {value if made else name})"
        for name, value, made in zip(places, values, has_factory, strict=True)
    ]
    space: dict[str, Any] = {}
    exec(f"def __init__({', '.join(['self', *places])}):\n " + "\n ".join(lines or ["pass"]), space)
    return space["__init__"].__code__, places


def _new(instance: Any, name: str) -> Any:
    """Returns what the factory of a field makes."""
    return instance.__dataclass_fields__[name].default_factory()


def _with_default(cls: type, fields: tuple[_Field, ...]) -> tuple[_Field, ...]:
    """Returns the fields that have a default, the last ones."""
    has_default = [_has_factory(field) or field.default is not dataclasses.MISSING for field in fields]
    required = has_default.count(False)
    if not all(has_default[required:]):
        raise TypeError(f"{cls.__qualname__}: a field without a default follows one with a default")
    if hasattr(cls, "__post_init__") or any(field.kw_only or not field.init for field in fields):
        raise TypeError(f"{cls.__qualname__}: __init__ takes all fields by position, and does no more than set them")
    return fields[required:]


def _has_factory(field: _Field) -> bool:
    return field.default_factory is not dataclasses.MISSING


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
