"""The Open Inference Protocol's JSON, where tensors hold flat lists of numbers, to arrays.

simdjson flattens nested lists: that there are none in the tensors is proved by the body's brackets,
of which there are as many as lists outside. Whatever is not so is left to `values`.
"""

from typing import Any

import simdjson

from service.gateway.decode.simd import KINDS, NotRegular, flat_array, read_by_simdjson
from sluice.wire.oip_tensors import DATATYPES
from sluice.wire.tensors import Array

MAX_OTHERS = 10_000  # values outside of the tensors' data, each made one by one


def parse_flat_tensors(body: bytes) -> dict[str, Any] | None:
    """The document of an infer request, each tensor's `data` [N] in its datatype; None where this
    way cannot be sure of it."""
    return read_by_simdjson(body, lambda document: _Reader().document(document, body))


class _Reader:
    """Makes Python objects of a document, and counts its lists."""

    def __init__(self) -> None:
        self._lists = self._others = 0

    def document(self, document: Any, body: bytes) -> dict[str, Any]:
        plain = self._members(document, apart="inputs")
        plain["inputs"] = [self._tensor(tensor) for tensor in self._list(document["inputs"])]
        if body.count(b"[") != self._lists:
            raise NotRegular
        return plain

    def _tensor(self, tensor: Any) -> dict[str, Any]:
        plain = self._members(tensor, apart="data")
        plain["data"] = self._numbers(tensor["data"], plain.get("datatype"))
        return plain

    def _numbers(self, data: Any, datatype: Any) -> Array:
        dtype = DATATYPES.get(datatype) if isinstance(datatype, str) else None
        if dtype is None or dtype.kind not in KINDS:
            raise NotRegular
        return flat_array(self._list(data), dtype)

    def _members(self, value: Any, apart: str) -> dict[str, Any]:
        """An object's members but one, which it has."""
        names = list(value) if isinstance(value, simdjson.Object) else []
        if apart not in names or len(set(names)) < len(names):
            raise NotRegular
        return {name: self._plain(value[name]) for name in names if name != apart}

    def _list(self, value: Any) -> Any:
        if not isinstance(value, simdjson.Array):
            raise NotRegular
        self._lists += 1
        return value

    def _plain(self, value: Any) -> Any:
        self._others += 1
        if self._others > MAX_OTHERS:
            raise NotRegular
        if isinstance(value, simdjson.Object):
            names = list(value)
            if len(set(names)) < len(names):
                raise NotRegular
            return {name: self._plain(value[name]) for name in names}
        if isinstance(value, simdjson.Array):
            return [self._plain(each) for each in self._list(value)]
        return value
