"""Calling a model by names: tensors by input name in, tensors by head name out."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

import models


def call(model: keras.Model, inputs: Mapping[str, Any], *, training: bool) -> dict[str, Any]:
    values = [inputs[tensor.name] for tensor in model.inputs]
    outputs = model(values if len(values) > 1 else values[0], training=training)
    if isinstance(outputs, dict):
        return outputs
    flat = outputs if isinstance(outputs, list | tuple) else [outputs]
    return dict(zip(models.heads(model), flat, strict=True))
