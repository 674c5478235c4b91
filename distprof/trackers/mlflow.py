"""Writes figures as a run of MLflow; MLFLOW_TRACKING_URI says where that goes, else a folder of the run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from distprof.errors import UsageError
from distprof.trackers.figures import Figures


def log(figures: Figures, folder: Path, project: str) -> str:
    """Writes a run of the experiment ``project``, and returns where it is.  ``folder`` is used where no tracking URI is
    set.  Raises UsageError if the package is missing, or does not take the run.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise UsageError("the package mlflow is missing: pip install 'distprof[mlflow]'") from None
    uri = os.environ.get("MLFLOW_TRACKING_URI") or folder.absolute().as_uri()
    if uri.startswith("file:"):  # MLflow 3 asks those who choose a folder to say that they mean it
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        return _write(figures, MlflowClient(uri), project, uri)
    except MlflowException as error:
        raise UsageError(f"mlflow did not take the run at {uri}: {error}") from None


def _write(figures: Figures, client: object, project: str, uri: str) -> str:
    from mlflow import MlflowClient

    assert isinstance(client, MlflowClient)
    known = client.get_experiment_by_name(project)
    experiment = known.experiment_id if known is not None else client.create_experiment(project)
    run = client.create_run(experiment, run_name=figures.name, tags={"made by": "distprof"}).info.run_id
    for name, value in figures.setup.items():
        client.log_param(run, name, value)
    for name, scalar in figures.scalars.items():
        client.log_metric(run, name, scalar, step=figures.step)
    for iteration, wall_ms in figures.iterations.items():
        client.log_metric(run, "iteration/wall_ms", wall_ms, step=iteration)
    with tempfile.TemporaryDirectory(prefix="distprof-") as files:
        for name, png in figures.pictures.items():
            (Path(files) / f"{name}.png").write_bytes(png)
        (Path(files) / "first_page.txt").write_text(figures.text, encoding="utf-8")
        client.log_artifacts(run, files, "distprof")
    client.set_terminated(run)
    return f"run {run} of experiment {project} at {uri}"
