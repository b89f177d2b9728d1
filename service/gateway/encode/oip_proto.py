"""Open Inference Protocol v2: outputs to gRPC's ModelInferResponse."""

from collections.abc import Mapping

from service.gateway.encode.oip import described, wanted_outputs
from service.gateway.query import OipQuery
from sluice.wire.model_ref import ModelRef
from sluice.wire.oip_tensors import CONTENTS, encode_raw
from sluice.wire.protos.inference_pb2 import ModelInferResponse
from sluice.wire.tensors import Array


def encode_model_infer(
    outputs: Mapping[str, Array], version: int, model: ModelRef, query: OipQuery
) -> ModelInferResponse:
    """The answer: all outputs raw where the query asks for it, or where one has no typed field."""
    response = ModelInferResponse(model_name=model.name, model_version=str(version), id=query.id)
    wanted = wanted_outputs(outputs, query)
    tensors = [described(output.name, outputs[output.name]) for output in wanted]
    is_raw = any(output.binary for output in wanted) or not all(
        tensor["datatype"] in CONTENTS for tensor in tensors
    )
    for tensor in tensors:
        array = outputs[tensor["name"]]
        target = response.outputs.add(**tensor)
        if is_raw:
            response.raw_output_contents.append(encode_raw(array))
        else:
            getattr(target.contents, CONTENTS[tensor["datatype"]]).extend(array.ravel().tolist())
    return response
