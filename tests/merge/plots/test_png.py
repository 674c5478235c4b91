"""The PNG files of plots: another program reads the pixels that were written."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from distprof.merge.plots.png import png_of


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (3, 400)])
def test_another_program_reads_the_same_pixels(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), np.uint8)
    with Image.open(io.BytesIO(png_of(pixels, 150))) as picture:
        picture.load()
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(picture), pixels[:, :, :3])
        assert [round(dots) for dots in picture.info["dpi"]] == [150, 150]
