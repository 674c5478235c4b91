"""Fused optimizers, whose whole step is one op."""

from __future__ import annotations

from typing import Any

from distprof.flops.formulas.rule import Chapter, Rule, Work, numel


def _adam(_: Any, parameters: Any, *args: Any, **settings: Any) -> Work:
    decay = 2 if settings.get("weight_decay") else 0
    each = 13 + decay + bool(settings.get("amsgrad")) + (settings.get("grad_scale") is not None)
    return 0, each * numel(parameters)


def _sgd(_: Any, parameters: Any, *args: Any, **settings: Any) -> Work:
    each = 2 + (2 if settings.get("weight_decay") else 0) + (settings.get("grad_scale") is not None)
    if settings.get("momentum"):
        each += 3 + (2 if settings.get("nesterov") else 0)
    return 0, each * numel(parameters)


def _adagrad(_: Any, parameters: Any, *args: Any, **settings: Any) -> Work:
    each = 7 + (2 if settings.get("weight_decay") else 0) + (settings.get("grad_scale") is not None)
    return 0, each * numel(parameters)


CHAPTER = Chapter(
    "Fused optimizers",
    "Flops are for each element of a parameter; corrections that are computed once a step are left out.  Other "
    "optimizers are counted op by op.",
    (
        Rule(
            ("_fused_adam", "_fused_adamw"),
            _adam,
            "0",
            "13: first moment 3, second 4, root, quotient and epsilon 3, step 3; 2 more for weight decay, 1 for "
            "amsgrad, 1 for a scaler",
        ),
        Rule(("_fused_sgd",), _sgd, "0", "2; 2 more for weight decay, 3 for momentum, 2 for nesterov, 1 for a scaler"),
        Rule(("_fused_adagrad",), _adagrad, "0", "7; 2 more for weight decay, 1 for a scaler"),
    ),
)
