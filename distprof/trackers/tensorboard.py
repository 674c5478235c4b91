"""Writes figures as an event file of TensorBoard, without torch and TensorFlow."""

from __future__ import annotations

import struct
import time
from pathlib import Path

from distprof.errors import UsageError
from distprof.trackers.figures import Figures


def log(figures: Figures, folder: Path) -> str:
    """Writes into ``folder``, and returns what to do with it.  Raises UsageError if the package is missing."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise UsageError("the package tensorboard is missing: pip install 'distprof[tensorboard]'") from None
    writer = EventFileWriter(str(folder))

    def add(step: int, value: object) -> None:
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))

    for name, scalar in figures.scalars.items():
        add(figures.step, Summary.Value(tag=name, simple_value=scalar))
    for iteration, wall_ms in figures.iterations.items():
        add(iteration, Summary.Value(tag="iteration/wall_ms", simple_value=wall_ms))
    for name, png in figures.pictures.items():
        width, height = png_size(png)
        image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
        add(figures.step, Summary.Value(tag=name, image=image))
    setup = "\n".join(f"    {name}: {value}" for name, value in figures.setup.items())
    page = "\n".join(f"    {line}" for line in figures.text.splitlines())
    for name, text in (("first page", page), ("set-up", setup)):
        writer.add_event(Event(wall_time=time.time(), step=figures.step, summary=text_pb(name, text)))
    writer.close()
    return f"tensorboard --logdir {folder}"


def png_size(png: bytes) -> tuple[int, int]:
    """Returns the width and the height in pixels, from the first chunk of a PNG file."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height
