"""What shape each input of a version must have: said by its signatures or, failing them, its graph.

A tensor of another rank can end the whole process, in TensorFlow Serving too: oneDNN's convolution
aborts on it. TensorFlow's shape functions run forwards, from inputs to outputs, and tell nothing of
what an op wants of a placeholder; hence the table of those that take one rank alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from service.modelserver.graphs import Body, GraphDef, Node, canonical
from sluice.wire.data_types import TensorError
from sluice.wire.protos.tensorflow_pb2 import SignatureDef
from sluice.wire.signature import TensorSpec

# By op: the rank that an input has, by its position.
_RANKS: dict[str, dict[int, int]] = {
    "AvgPool": {0: 4},
    "AvgPool3D": {0: 5},
    "Conv2D": {0: 4, 1: 4},
    "Conv2DBackpropInput": {1: 4, 2: 4},
    "Conv3D": {0: 5, 1: 5},
    "Conv3DBackpropInputV2": {1: 5, 2: 5},
    "CropAndResize": {0: 4},
    "DepthToSpace": {0: 4},
    "DepthwiseConv2dNative": {0: 4, 1: 4},
    "FusedBatchNorm": {0: 4},
    "FusedBatchNormV2": {0: 4},
    "FusedBatchNormV3": {0: 4},
    "LRN": {0: 4},
    "MatMul": {0: 2, 1: 2},
    "MaxPool": {0: 4},
    "MaxPool3D": {0: 5},
    "MaxPoolV2": {0: 4},
    "ParseExample": {0: 1},
    "ResizeArea": {0: 4},
    "ResizeBicubic": {0: 4},
    "ResizeBilinear": {0: 4},
    "ResizeNearestNeighbor": {0: 4},
    "SpaceToDepth": {0: 4},
}
# Of these formats the tensor has one axis more than the table says.
_FIVE_AXES = (b"NDHWC", b"NCDHW", b"NCHW_VECT_C")
_ONE_RANK_OF_3D = ("AvgPool3D", "Conv3D", "Conv3DBackpropInputV2", "MaxPool3D")
# Ops whose output has the rank of their first input.
_KEEP_RANK = frozenset(
    """Abs BiasAdd Cast CheckNumerics ClipByValue Elu Exp Floor Identity LeakyRelu Log Log1p
    MirrorPad Neg Pad PadV2 PreventGradient Relu Relu6 ReverseV2 Round Rsqrt Selu Sigmoid
    Snapshot Softplus Softsign Sqrt Square StopGradient Tanh Transpose""".split()  # noqa: SIM905
)
# Ops whose output has the rank of the one input that has more axes.
_BROADCAST = frozenset({"Add", "AddV2", "Div", "Maximum", "Minimum", "Mul", "RealDiv", "Sub"})
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def expected_inputs(
    signatures: Mapping[str, SignatureDef], graph: GraphDef
) -> dict[str, TensorSpec]:
    """By the tensor that is fed (`serving_default_image:0`), what it must be.

    Left out are those of which neither a signature nor the graph knows the rank.
    """
    expected: dict[str, TensorSpec] = {}
    for signature in signatures.values():
        outputs = [info.name for info in signature.outputs.values()]
        for name, info in signature.inputs.items():
            with suppress(TensorError):  # a dtype that no array holds cannot be fed either
                spec = TensorSpec.from_proto(name, info)
                if spec.shape is None:
                    rank = wanted_rank(graph, info.name, outputs)
                    spec = replace(spec, shape=None if rank is None else (None,) * rank)
                known = expected.get(info.name)
                expected[info.name] = spec if known is None else _either(known, spec)
    return {tensor: spec for tensor, spec in expected.items() if spec.shape is not None}


def _either(one: TensorSpec, other: TensorSpec) -> TensorSpec:
    """Of a tensor that two signatures feed: what at least one of them allows."""
    name = one.name if one.name == other.name else f'{one.name}" or "{other.name}'
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return TensorSpec(name, one.dtype, None)
    sizes = (a if a == b else None for a, b in zip(one.shape, other.shape, strict=True))
    return TensorSpec(name, one.dtype, tuple(sizes))


def wanted_rank(graph: GraphDef, tensor: str, outputs: Iterable[str]) -> int | None:
    """The rank that some op on the way from `tensor` to `outputs` must have it in, if one must."""
    functions = {function.signature.name: function for function in graph.library.function}

    @cache
    def function_body(name: str) -> Body:
        return Body.of_function(functions[name])

    whole = Body(graph.node, outputs)
    seen: set[tuple[int, str]] = set()
    waiting = [_Place(whole, canonical(tensor))]
    while waiting:
        place = waiting.pop()
        if (id(place.body), place.tensor) in seen:
            continue
        seen.add((id(place.body), place.tensor))
        for node, position in place.body.consumers[place.tensor]:
            rank = _rank_of(node, position)
            if rank is not None and rank - place.added > place.above:
                return rank - place.added
            called = node.attr["f"].func.name if node.op in _CALLS else node.op
            if called in functions:
                argument = functions[called].signature.input_arg[position].name
                waiting.append(place._replace(body=function_body(called), tensor=f"{argument}:0"))
            else:
                waiting.extend(place.after(node, position))
    return None


class _Place(NamedTuple):
    """Where the fed tensor has come to on its way through the graph."""

    body: Body
    tensor: str
    added: int = 0  # axes that it has got since it was fed
    above: int = -1  # the fed rank is this plus one at least, or broadcasting has changed it

    def after(self, node: Node, position: int) -> "Iterator[_Place]":
        """The output of an op of which is known how its rank follows from this input's."""
        output = self._replace(tensor=f"{node.name}:0")
        if node.op in _KEEP_RANK and position == 0:
            yield output
        elif node.op == "ExpandDims" and position == 0:
            yield output._replace(added=self.added + 1)
        elif node.op == "StridedSlice" and position == 0:  # x[tf.newaxis], x[0]
            made, taken = (node.attr[mask].i for mask in ("new_axis_mask", "shrink_axis_mask"))
            yield output._replace(added=self.added + made.bit_count() - taken.bit_count())
        elif node.op in _BROADCAST:
            other = self.body.constant_rank(node.input[1 - position])
            if other is not None:
                yield output._replace(above=max(self.above, other - self.added))


def _rank_of(node: Node, position: int) -> int | None:
    rank = _RANKS.get(node.op, {}).get(position)
    if rank is None or node.op in _ONE_RANK_OF_3D:
        return rank
    return rank + (node.attr["data_format"].s in _FIVE_AXES)
