"""The Open Inference Protocol v2 over gRPC, as KServe's and Triton's clients speak it."""

from collections.abc import Mapping

from service.gateway.decode.images import check_content
from service.gateway.decode.oip_proto import decode_model, decode_model_infer
from service.gateway.encode.oip import encode_metadata, encode_server
from service.gateway.encode.oip_proto import encode_model_infer
from service.gateway.errors import NotFound, RequestError
from service.gateway.model_server import ModelServer
from service.gateway.query import OipQuery
from service.gateway.readiness import readiness
from service.gateway.rpc.edge import Method, parsed
from service.gateway.settings import Settings
from service.gateway.signature import Signatures
from sluice.wire.protos import inference_pb2 as inference
from sluice.wire.tensors import Array

SERVICE = "inference.GRPCInferenceService"


class Oip:
    """The methods of the service; all raise a GatewayError."""

    def __init__(self, settings: Settings, server: ModelServer) -> None:
        self._settings, self._server = settings, server

    def methods(self) -> Mapping[str, Method]:
        return {
            "ServerLive": parsed(inference.ServerLiveRequest, self.live),
            "ServerReady": parsed(inference.ServerReadyRequest, self.ready),
            "ServerMetadata": parsed(inference.ServerMetadataRequest, self.server_metadata),
            "ModelReady": parsed(inference.ModelReadyRequest, self.model_ready),
            "ModelMetadata": parsed(inference.ModelMetadataRequest, self.metadata),
            "ModelInfer": parsed(inference.ModelInferRequest, self.infer),
        }

    def infer(self, request: inference.ModelInferRequest) -> inference.ModelInferResponse:
        model = decode_model(request.model_name, request.model_version)

        def check(signatures: Signatures) -> tuple[OipQuery, dict[str, Array]]:
            query = check_content(
                decode_model_infer(request, signatures), self._settings.max_image_pixels
            )
            return query, query.signature.validate(query.inputs)

        query, inputs = self._server.checked(model, check)
        prediction = self._server.predict(
            model, query.signature.name, inputs, [output.name for output in query.outputs]
        )
        return encode_model_infer(prediction.outputs, prediction.version, model, query)

    def metadata(self, request: inference.ModelMetadataRequest) -> inference.ModelMetadataResponse:
        model = decode_model(request.name, request.version)
        signature = self._server.signatures(model).get()
        versions = self._server.available_versions(model.name)
        return inference.ModelMetadataResponse(**encode_metadata(model, versions, signature))

    def model_ready(self, request: inference.ModelReadyRequest) -> inference.ModelReadyResponse:
        """A model that is not there is not ready; GetModelMetadata answers for ready ones only."""
        try:
            self._server.metadata(decode_model(request.name, request.version))
        except (NotFound, RequestError):
            return inference.ModelReadyResponse(ready=False)
        return inference.ModelReadyResponse(ready=True)

    def server_metadata(
        self, _: inference.ServerMetadataRequest
    ) -> inference.ServerMetadataResponse:
        return inference.ServerMetadataResponse(**encode_server())

    def live(self, _: inference.ServerLiveRequest) -> inference.ServerLiveResponse:
        return inference.ServerLiveResponse(live=True)

    def ready(self, _: inference.ServerReadyRequest) -> inference.ServerReadyResponse:
        return inference.ServerReadyResponse(ready=readiness(self._settings, self._server).ready)
