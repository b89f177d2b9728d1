"""What a model server's errors say in words: for a caller to read, and where no code tells."""

import re

_PLACES = re.compile(r"\n\s*\[\[[^\n]*\]\]|\{\{(?:function_)?node [^{}\n]*\}\} ?")
# gRPC's own words for a connection that was lost under a call: the server may have begun it, and
# may have died of it, so it is taken to no other. Everything else that is UNAVAILABLE was never
# begun: there was no connection, or the server said in its own words that it does not take it.
_LOST = re.compile(
    "stream removed|socket closed|connection reset|broken pipe|goaway|keepalive|transport closed|"
    "endpoint clos|recvmsg|rst_stream",
    re.IGNORECASE,
)
_NEVER_CONNECTED = re.compile("failed to connect|connections to all backends failing", re.I)
# TensorFlow's kernels, XLA, and the libraries under them.
_NO_MEMORY = re.compile("oom when allocating|out of memory|failed to allocate", re.IGNORECASE)


def plain_reason(message: str) -> str:
    """The message without the nodes that it names: they tell a caller nothing.

    >>> plain_reason("{{function_node __inference_f_6}} Input is empty.\\n\\t [[{{node Decode}}]]")
    'Input is empty.'
    """
    return _PLACES.sub("", message).strip()


def is_lost(reason: str) -> bool:
    """Whether UNAVAILABLE is said of a call that may have been begun.

    >>> is_lost("Socket closed"), is_lost("failed to connect; last error: Connection reset by peer")
    (True, False)
    """
    return bool(_LOST.search(reason)) and not _NEVER_CONNECTED.search(reason)


def is_out_of_memory(reason: str) -> bool:
    """Whether RESOURCE_EXHAUSTED is said of memory that a version has asked for, and not of a
    server that has too much to do.

    >>> is_out_of_memory("OOM when allocating tensor with shape[64,4096]"), is_out_of_memory("full")
    (True, False)
    """
    return bool(_NO_MEMORY.search(reason))
