"""Writes figures as a run of Weights & Biases; its own settings (WANDB_MODE, ...) say where that goes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from distprof.errors import UsageError
from distprof.trackers.figures import Figures


def log(figures: Figures, folder: Path, project: str) -> str:
    """Writes a run, with local files in ``folder``, and returns where it is.  Raises UsageError if the package is
    missing, or the run cannot be begun.
    """
    try:
        import wandb
    except ImportError:
        raise UsageError("the package wandb is missing: pip install 'distprof[wandb]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    try:
        run = wandb.init(
            project=project,
            name=figures.name,
            dir=str(folder),
            config=dict(figures.setup),
            job_type="distprof",
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.errors.Error as error:
        raise UsageError(f"wandb did not begin a run ({error}): log in, or set WANDB_MODE=offline") from None
    run.define_metric("iteration/wall_ms", step_metric="iteration/number")
    for iteration, wall_ms in figures.iterations.items():
        run.log({"iteration/number": iteration, "iteration/wall_ms": wall_ms})
    with tempfile.TemporaryDirectory(prefix="distprof-") as pictures:
        run.log({**figures.scalars, **{name: _image(pictures, name, png) for name, png in figures.pictures.items()}})
        run.summary.update(figures.scalars)
        run.finish()
    return f"{run.url or run.dir}"


def _image(folder: str, name: str, png: bytes) -> object:
    """Returns the picture as an image of wandb, which reads it from a file."""
    import wandb

    file = Path(folder) / f"{name}.png"
    file.write_bytes(png)
    return wandb.Image(str(file))
