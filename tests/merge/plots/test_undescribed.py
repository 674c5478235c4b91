"""The quick import of matplotlib: the same plots, and no trace in what is imported later."""

from __future__ import annotations

import subprocess
import sys

from matplotlib import artist
from matplotlib.lines import Line2D

from distprof.merge.plots import undescribed

_SCRIPT = """
from distprof.merge.plots import undescribed

with undescribed():
    from matplotlib.lines import Line2D
from matplotlib.text import Text

print(Line2D.set.__doc__ == Text.set.__doc__, "linewidth" in (Line2D.set.__doc__ or ""), "fontsize" in Text.set.__doc__)
"""


def test_classes_have_no_description_meanwhile_and_later_ones_have() -> None:
    ended = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False", "True"]


def test_nothing_is_changed_afterwards() -> None:
    before = artist.kwdoc, vars(artist.Artist)["_update_set_signature_and_docstring"]
    with undescribed():
        assert artist.kwdoc(Line2D) == ""
    assert (artist.kwdoc, vars(artist.Artist)["_update_set_signature_and_docstring"]) == before
