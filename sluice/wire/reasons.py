"""What TensorFlow says of an error, without the places in its graph: they tell a caller nothing."""

import re

_PLACES = re.compile(r"\n\s*\[\[[^\n]*\]\]|\{\{(?:function_)?node [^{}\n]*\}\} ?")


def plain_reason(message: str) -> str:
    """The message without the nodes that it names.

    >>> plain_reason("{{function_node __inference_f_6}} Input is empty.\\n\\t [[{{node Decode}}]]")
    'Input is empty.'
    """
    return _PLACES.sub("", message).strip()
