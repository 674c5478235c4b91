"""Shortened names: the middle is cut, the layer's number stays, and different names stay different."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprof.merge.text.format.shortening import shortened, shortened_apart


def test_the_middle_is_cut() -> None:
    assert shortened("transformer.layers.11.mlp", 20) == "...layers.11.mlp"
    assert shortened("layers.11.mlp", 20) == "layers.11.mlp"
    assert shortened("model.language_model.layers.11.mixture_of_experts_block.moe", 30) == "model...layers.11...moe"
    assert shortened("x" * 30, 20) == "x" * 8 + "..." + "x" * 9
    assert shortened("gpu-node-0123.cluster.example.com", 20) == "gpu-node-0123...com"


def test_a_name_without_short_parts_is_cut_by_characters() -> None:
    assert shortened("aten::a_long_name_of_an_op_in_the_backward.default", 20) == "aten::a_...d.default"


def test_layers_have_different_short_names() -> None:
    """Shortens five long names that differ in the layer's number only."""
    names = [
        f"model.language_model.decoder.layers.{n}.feed_forward_of_this_block.mixture_of_experts.moe" for n in range(5)
    ]
    short = shortened_apart(names, 30)
    assert [name.split(".layers.")[1].split(".")[0] for name in short.values()] == ["0", "1", "2", "3", "4"]
    assert all(name.endswith("moe") for name in short.values())


def test_distinctive_parts_are_kept() -> None:
    names = ["a_long_model_name.generator.block.moe", "a_long_model_name.discriminator.block.moe"]
    short = shortened_apart(names, 32)
    assert list(short.values()) == ["...generator.block.moe", "...discriminator.block.moe"]


def test_names_that_differ_nowhere_visible_are_numbered() -> None:
    short = shortened_apart([f"{'x' * 40}{middle}{'x' * 40}" for middle in "abc"], 20)
    assert [name[-3:] for name in short.values()] == ["xxx", " #2", " #3"]


def test_forms_that_are_cut_for_their_number_stay_apart() -> None:
    names = ("layers.layers.11", "layers.11.0.layers", "layers.11.0.layers.layers", "layers.11")
    short = shortened_apart([f"{name}.layers.layers" for name in names], 16)
    assert len(set(short.values())) == 4


@pytest.mark.parametrize("width", [16, 24, 44])
@given(names=st.lists(st.lists(st.sampled_from(["layers", "0", "11", "moe", "feed_forward", "y" * 50]), max_size=9)))
def test_any_names_fit_and_stay_apart(width: int, names: list[list[str]]) -> None:
    texts = [".".join(name) for name in names]
    short = shortened_apart(texts, width)
    assert set(short) == set(texts)
    assert len(set(short.values())) == len(short)
    assert all(len(name) <= width for name in short.values())
