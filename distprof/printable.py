"""Text from files, names and arguments on its way to a terminal, a log or a picture: everything of ours passes here.

A name may hold terminal codes, or marks that turn the order of what is shown (bidi), or nothing that can be seen.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` with everything escaped that is no letter, sign, space or line break."""
    return "\n".join(map(on_one_line, text.split("\n")))


def on_one_line(text: str) -> str:
    """As :func:`printable`, with line breaks escaped, too: what follows one could pass for a line of ours."""
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_json(text: str) -> str:
    """JSON text of the same meaning: whatever is not printable stands in a string there, as an escape of JSON's."""
    lines = text.split("\n")
    return "\n".join(line if line.isprintable() else "".join(map(_shown_in_json, line)) for line in lines)


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _shown_in_json(character: str) -> str:
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))
