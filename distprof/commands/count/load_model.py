"""Loads the model ``MODULE:FACTORY`` for ``distprof count``.

An exception of the user's code becomes one sentence that says what was raised, and where.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from distprof.errors import DataError, DistprofError, UsageError
from distprof.suggestions import did_you_mean

_OURS = (str(Path(__file__).parents[2]), str(Path(torch.__file__).parent), "<frozen")


def find_factory(target: str) -> Any:
    """Returns the object ``MODULE:FACTORY``.  MODULE can be imported from the current folder, or is a .py file.

    Raises UsageError if it does not exist, DataError if its import raises.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise UsageError(
            f"{target} names no model: give MODULE:FACTORY, as in torchvision.models:resnet50 or net.py:Net"
        )
    thing: Any = _module(place)
    with user_errors(f"looking for {name} in {place}", ""):
        return _get_attribute(thing, place, name)


def _get_attribute(thing: Any, place: str, name: str) -> Any:
    for part in name.split("."):
        if not hasattr(thing, part):
            question = did_you_mean(part, dir(thing))
            hint = f": {question}" if question else ", nor anything called nearly so"
            raise UsageError(f"{place} has no {name!r}{hint}")
        thing = getattr(thing, part)
    return thing


def build_model(target: str, device: str) -> nn.Module:
    """Returns the model that ``target`` is or makes, on ``device``.  Raises UsageError and DataError."""
    factory = find_factory(target)
    if isinstance(factory, nn.Module):
        model = factory
    elif callable(factory):
        model = _call_factory(factory, target, device)
    else:
        raise UsageError(f"{target} is of type {type(factory).__name__}: give a function or class that makes a model")
    with user_errors(f"moving the model to {device}", device, model):
        _check_no_cycle(model)
        return model.to(device) if model is factory else model


def _call_factory(factory: Callable[..., Any], target: str, device: str) -> nn.Module:
    _check_no_arguments(factory, target)
    with user_errors(f"making the model with {target}", device), torch.device(device):
        model = factory()
    if not isinstance(model, nn.Module):
        raise UsageError(f"{target} made something of type {type(model).__name__}: give what makes a torch.nn.Module")
    return model


def _check_no_cycle(model: nn.Module) -> None:
    """Raises UsageError if a module contains itself: ``train()`` and ``to()`` would never end in such a model."""
    inside: list[tuple[str, nn.Module, Iterator[tuple[str, nn.Module]]]] = [("", model, model.named_children())]
    done: set[int] = set()
    while inside:
        children = inside[-1][2]
        below, child = next(children, ("", None))
        if child is None:
            done.add(id(inside.pop()[1]))
        elif any(child is outer for _, outer, _ in inside):
            path = ".".join([*(outer for outer, *_ in inside if outer), below])
            raise UsageError(f"the model holds itself: {path} is a {type(child).__name__} around it; take that out")
        elif id(child) not in done:
            inside.append((below, child, child.named_children()))


@contextlib.contextmanager
def user_errors(
    doing: str, device: str, model: nn.Module | None = None, advice: str = "see to that first"
) -> Iterator[None]:
    """Converts exceptions of the user's code to a DataError with one sentence, and sends its output to stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except DistprofError:
        raise
    except (Exception, SystemExit) as error:
        message, where = _message(error), ", ".join([*_module_of(error, model), *_line_of(error)])
        if device == "meta" and "meta" in message.lower():
            advice = "nothing has a value on the meta device; give --device cpu to really run it"
        what = f"{doing} raised {type(error).__name__}{f': {message}' if message else ''}"
        raise DataError(f"{what}{f' ({where})' if where else ''}: {advice}") from None


def _message(error: BaseException) -> str:
    try:
        return str(error).strip().partition("\n")[0]
    except Exception:  # its __str__ raises
        return ""


def _module(place: str) -> ModuleType:
    """Imports a module by its name, as ``python -m`` does, or a file, with its folder first on the path."""
    path = Path(place)
    sys.path.insert(0, str(path.absolute().parent if path.suffix == ".py" else Path.cwd()))
    with user_errors(f"importing {place}", ""):
        if path.suffix == ".py" and path.is_file():
            return _import_file(path)
        with contextlib.suppress(_ModuleMissing):
            return _import_name(place)
    what = f"file {place}" if path.suffix == ".py" else f"module {place} in the current folder or in {sys.executable}"
    raise UsageError(f"there is no {what}: give MODULE:FACTORY, a module's name or file and what in it makes the model")


class _ModuleMissing(Exception):
    """The module itself does not exist; it is not one that it imports."""


def _import_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise _ModuleMissing from None
        raise


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # where dataclasses and pickle look for it
    spec.loader.exec_module(module)
    return module


def _check_no_arguments(factory: Callable[..., Any], target: str) -> None:
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UsageError(
            f"{target} wants arguments ({error}): give a function that makes the model without any"
        ) from None
    except ValueError:  # some built-in functions have no signature
        return


def _module_of(error: BaseException, model: nn.Module | None) -> Iterator[str]:
    """Yields the innermost module of the model that was running."""
    names: dict[int, str] = {}
    with contextlib.suppress(Exception):  # one that is nested too deeply has no names
        names = {id(module): name for name, module in model.named_modules()} if model is not None else {}
    running = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    for module in reversed(running):
        if id(module) in names:
            name = names[id(module)]
            yield f"in {name + ', a ' if name else ''}{type(module).__name__}"
            return


def _line_of(error: BaseException) -> Iterator[str]:
    """Yields the innermost line of code that is neither distprof's nor torch's."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_OURS):
            yield f"{frame.filename}:{frame.lineno}"
            return
