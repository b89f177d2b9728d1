"""A model's graph as TensorFlow writes it: what its outputs need, and whether a run for them can be
ended.

Not tf.Graph, which has the functions' bodies only as messages too.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

# TensorFlow's own message classes, which are untyped.
Node = Any  # NodeDef
GraphDef = Any

_LOOPS = frozenset({"LoopCond", "MapDefun", "StatelessWhile", "While"})
_JOINING = frozenset({"Batch", "BatchFunction"})


class Body:
    """The nodes of a graph or a function without which its outputs cannot be had."""

    def __init__(self, nodes: Iterable[Node], outputs: Iterable[str]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.consumers: dict[str, list[tuple[Node, int]]] = defaultdict(list)
        waiting, needed = [*outputs], set()
        while waiting:
            name = waiting.pop().lstrip("^").partition(":")[0]
            if name in self.nodes and name not in needed:
                needed.add(name)
                waiting.extend(self.nodes[name].input)
        self._needed = needed
        for node in self.needed():
            for position, tensor in enumerate(node.input):
                self.consumers[canonical(tensor)].append((node, position))

    @classmethod
    def of_function(cls, function: Any) -> "Body":
        return cls(function.node_def, (*function.ret.values(), *function.control_ret.values()))

    def needed(self) -> Iterable[Node]:
        return (self.nodes[name] for name in self._needed)

    def constant_rank(self, tensor: str) -> int | None:
        """None for what is no constant."""
        node = self.nodes.get(tensor.partition(":")[0])
        while node is not None and node.op in ("Cast", "Identity"):
            node = self.nodes.get(node.input[0].partition(":")[0])
        if node is None or node.op != "Const":
            return None
        return len(node.attr["value"].tensor.tensor_shape.dim)


def can_end_early(graph: GraphDef, tensor: str) -> bool:
    """Whether a run for `tensor` may end before it is through: it takes a loop, and joins no other
    run in the graph, which would end with it."""
    operations = _operations(graph, tensor)
    return not operations.isdisjoint(_LOOPS) and operations.isdisjoint(_JOINING)


def _operations(graph: GraphDef, tensor: str) -> set[str]:
    """The types of those that are computed for `tensor`, in functions too."""
    functions = {function.signature.name: function for function in graph.library.function}
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [Body(graph.node, [tensor])]
    while waiting:
        for node in waiting.pop().needed():
            found.add(node.op)
            for name in {*_called_by(node), node.op} & functions.keys() - seen:
                seen.add(name)
                waiting.append(Body.of_function(functions[name]))
    return found


def _called_by(node: Node) -> Iterable[str]:
    for value in node.attr.values():
        yield value.func.name
        yield from (each.name for each in value.list.func)


def canonical(tensor: str) -> str:
    """`node:0` for `node`, and for the `node:output:0` of a function's body.

    Outputs of one op are confused in a function; only ops with one output are followed there.
    """
    name, _, output = tensor.partition(":")
    return f"{name}:{output.rpartition(':')[2] or 0}"
