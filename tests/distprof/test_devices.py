"""Tests of the names of devices."""

from __future__ import annotations

import platform

import pytest
import torch

from distprof import devices
from distprof.devices import cpu_name, device_name

XEON = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8480+
stepping\t: 8
power management:

processor\t: 1
model name\t: another
"""


def test_the_cpu_is_called_by_its_model() -> None:
    assert devices._model(XEON) == "Intel(R) Xeon(R) Platinum 8480+"


def test_a_cpu_whose_model_is_hidden_is_told_by_family_and_model() -> None:
    hidden = XEON.replace("Intel(R) Xeon(R) Platinum 8480+", "AMD EPYC ")
    assert devices._model(hidden) == "AMD EPYC (family 6, model 143)"


@pytest.mark.parametrize("text", ["", "processor\t: 0\nCPU implementer\t: 0x41\n\n", "model name\t: \n"])
def test_a_cpu_that_does_not_say_is_called_by_its_architecture(text: str) -> None:
    assert devices._model(text) == ""
    assert cpu_name() and device_name(None) == device_name(torch.device("cpu")) == cpu_name()
    assert devices._architecture() in {platform.processor(), platform.machine()}


@pytest.mark.parametrize("device", ["cuda:7", "meta", "mps"])
def test_a_device_that_cannot_be_asked_has_no_name(device: str) -> None:
    assert device_name(torch.device(device)) == ""


def test_a_gpu_is_called_as_torch_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA H100 PCIe of {device}")
    assert device_name(torch.device("cuda:1")) == "NVIDIA H100 PCIe of cuda:1"
