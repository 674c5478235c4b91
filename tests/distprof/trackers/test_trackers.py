"""Each tracker gets a run, and its own reader finds the figures in it; without its package the test is skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.synthetic import write_run

from distprof import load
from distprof.errors import UsageError
from distprof.merge.text import render_first_page
from distprof.trackers import mlflow as to_mlflow
from distprof.trackers import tensorboard as to_tensorboard
from distprof.trackers import wandb as to_wandb
from distprof.trackers.figures import Figures, figures_of


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    run = write_run(tmp_path_factory.mktemp("runs") / "run", dp=2, layers=2, steps=3)
    report = load(run).report
    return figures_of(report, render_first_page(report))


def test_tensorboard_reads_what_was_written(figures: Figures, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert to_tensorboard.log(figures, tmp_path / "events") == f"tensorboard --logdir {tmp_path}/events"
    events: Any = EventAccumulator(str(tmp_path / "events"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == set(figures.pictures) != set()
    for name, value in figures.scalars.items():
        (scalar,) = events.Scalars(name)
        assert (scalar.step, scalar.value) == (figures.step, pytest.approx(value, rel=1e-6))
    steps = {scalar.step: scalar.value for scalar in events.Scalars("iteration/wall_ms")}
    assert steps == pytest.approx(figures.iterations, rel=1e-6)
    image = events.Images(next(iter(figures.pictures)))[0]
    assert image.encoded_image_string in figures.pictures.values()


def test_wandb_writes_a_run_offline(figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    to_wandb.log(figures, tmp_path / "local", "speed")
    (written,) = (tmp_path / "local").rglob("run-*.wandb")
    content = written.read_bytes()
    for name in ("iteration/median_ms", "iteration/wall_ms", "world_size", figures.name):
        assert name.encode() in content
    pictures = [path.stem for path in (tmp_path / "local").rglob("*.png")]
    assert all(any(stem.startswith(name) for stem in pictures) for name in figures.pictures)


def test_mlflow_reads_what_was_written(figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    to_mlflow.log(figures, tmp_path / "store", "speed")
    client = mlflow.MlflowClient((tmp_path / "store").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("speed").experiment_id])
    metrics = dict(run.data.metrics)
    last = metrics.pop("iteration/wall_ms")
    assert metrics == pytest.approx(figures.scalars) and last == pytest.approx(figures.iterations[figures.step])
    history = client.get_metric_history(run.info.run_id, "iteration/wall_ms")
    assert {point.step: point.value for point in history} == pytest.approx(figures.iterations)
    assert run.data.params["world_size"] == "2" and run.info.run_name == figures.name
    files = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "distprof")}
    assert files == {"first_page.txt", *(f"{name}.png" for name in figures.pictures)}


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("tensorboard", to_tensorboard.log),
        ("wandb", lambda figures, folder: to_wandb.log(figures, folder, "p")),
        ("mlflow", lambda figures, folder: to_mlflow.log(figures, folder, "p")),
    ],
)
def test_a_missing_package_is_named(
    name: str, call: Any, figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for module in [name, *(one for one in sys.modules if one.startswith(f"{name}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"the package {name} is missing: pip install 'distprof\[{name}\]'"):
        call(figures, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_png_size_is_that_of_the_picture(figures: Figures) -> None:
    from io import BytesIO

    from PIL import Image

    png = next(iter(figures.pictures.values()))
    assert to_tensorboard.png_size(png) == Image.open(BytesIO(png)).size


def test_names_of_scalars_are_plain(figures: Figures) -> None:
    assert json.loads(json.dumps(figures.scalars)) == figures.scalars
    assert all(name.isascii() and " " not in name for name in figures.scalars)
