"""Escapes text from files, names and arguments before distprof shows it on a terminal, in a log or in a plot.

A name may contain terminal codes, marks that change the order of the shown text (bidi), or invisible characters.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """Returns ``text`` with all unprintable characters escaped, except line breaks."""
    return "\n".join(map(on_one_line, text.split("\n")))


def on_one_line(text: str) -> str:
    """As :func:`printable`, but escapes line breaks too: text after one could look like a line of distprof's own."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def printable_json(text: str) -> str:
    """Returns JSON text of the same meaning, with unprintable characters (always inside strings) as JSON escapes."""
    lines = text.split("\n")
    return "\n".join(line if line.isprintable() else "".join(map(_escaped_for_json, line)) for line in lines)


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _escaped_for_json(character: str) -> str:
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))
