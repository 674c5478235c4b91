"""Where a rank is, by its stack: the innermost call of the user's code, and the phase of the iteration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

import distprof
from distprof.heartbeat.rank_look import Frame

DATA, BACKWARD, OPTIMIZER = "data loading", "backward", "optimizer"
EVALUATION, CHECKPOINT, COMPILATION = "evaluation", "checkpoint", "compilation"
#: Parts of the paths of files that are not the user's.
_LIBRARIES = re.compile(r"/(site|dist)-packages/|/lib(64)?/python3|^<frozen|^<string>")
_OWN = f"{Path(distprof.__file__).parent}/"
#: phase -> files whose calls are a part of it.
_FILES = {
    CHECKPOINT: re.compile(r"torch/serialization\.py|torch/distributed/checkpoint/|/safetensors/|checkpoint_engine/"),
    COMPILATION: re.compile(r"torch/_dynamo/|torch/_inductor/|/triton/"),
    DATA: re.compile(r"torch/utils/data/|torch/multiprocessing/queue"),
    BACKWARD: re.compile(r"torch/autograd/(graph|__init__)\.py|torch/_tensor\.py"),
    OPTIMIZER: re.compile(r"torch/optim/"),
}
#: phase -> functions of the user that are it, by their names.
_FUNCTIONS = {
    CHECKPOINT: re.compile(
        r"^save$|checkpoint|ckpt|(save|load|restore|write|dump)_(the_)?(state|model|weights|pretrained|snapshot)"
    ),
    EVALUATION: re.compile(r"(^|_)(eval|evaluate|evaluation|valid|validate|validation|val)(_|$)"),
    DATA: re.compile(r"(^|_)(load|next|get|fetch|read|make)_(data|batch|batches|item|sample|samples)(_|$)"),
}
_ACTIVATIONS = "torch/utils/checkpoint.py"  # recomputes activations, and saves nothing


def user_frames(frames: Sequence[Frame]) -> list[Frame]:
    """Returns the calls of the user's code, the innermost first."""
    return [frame for frame in frames if not _LIBRARIES.search(frame.file) and not frame.file.startswith(_OWN)]


def place(frames: Sequence[Frame]) -> str:
    """Returns the innermost call of the user's code as text: ``load_batch (train.py:41)``."""
    found = next(iter(user_frames(frames) or frames), None)
    if found is None:
        return ""
    where = f"{PurePath(found.file).name}:{found.line}"
    return where if found.function.startswith("<module") else f"{found.function} ({where})"


def phase(frames: Sequence[Frame], *, evaluates: bool = False) -> str:
    """Returns the phase of a stack; empty for the rest of a training iteration.

    ``evaluates``: the model is in evaluation mode.
    """
    own = user_frames(frames)
    for name in (CHECKPOINT, EVALUATION, COMPILATION, DATA, BACKWARD, OPTIMIZER):
        files, functions = _FILES.get(name), _FUNCTIONS.get(name)
        if files is not None and any(files.search(frame.file) for frame in frames if _ACTIVATIONS not in frame.file):
            return name
        if functions is not None and any(functions.search(frame.function) for frame in own):
            return name
        if name == EVALUATION and evaluates:
            return name
    return ""
