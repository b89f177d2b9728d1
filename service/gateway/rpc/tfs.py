"""TensorFlow Serving's gRPC API: requests are checked, then passed on as the bytes they came in."""

from collections.abc import Mapping
from functools import partial

from service.gateway.decode.tfs_proto import decode_model_spec, decode_predict
from service.gateway.errors import NotImplementedByServer
from service.gateway.model_server import ModelServer
from service.gateway.rpc.edge import Method, parse
from service.gateway.settings import Settings
from service.gateway.signature import Signatures
from sluice.wire.protos.serving_pb2 import GetModelStatusRequest, PredictRequest

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"


class Tfs:
    """The methods of both services, by name; all raise a GatewayError."""

    def __init__(self, settings: Settings, server: ModelServer) -> None:
        self._settings, self._server = settings, server

    def prediction_service(self) -> Mapping[str, Method]:
        """Only Predict is under a rule that the model server does not keep itself."""
        passed_on = {
            name: partial(self._server.forward, f"/{PREDICTION_SERVICE}/{name}")
            for name in ("Classify", "Regress", "MultiInference", "GetModelMetadata")
        }
        return {"Predict": self.predict, **passed_on}

    def model_service(self) -> Mapping[str, Method]:
        return {"GetModelStatus": self.status, "HandleReloadConfigRequest": self.reload}

    def predict(self, data: bytes) -> bytes:
        request = parse(PredictRequest, data)
        model = decode_model_spec(request.model_spec)

        def check(signatures: Signatures) -> None:
            query = decode_predict(
                request, signatures, self._settings.max_body_bytes, self._settings.max_image_pixels
            )
            query.signature.validate(query.inputs)

        self._server.checked(model, check)
        return self._server.forward_predict(data, model)

    def status(self, data: bytes) -> bytes:
        model = decode_model_spec(parse(GetModelStatusRequest, data).model_spec)
        if model.label is not None:  # GetModelStatus passes an unknown label over; this does not
            self._server.metadata(model)
        return self._server.forward(f"/{MODEL_SERVICE}/GetModelStatus", data, model)

    def reload(self, _: bytes) -> bytes:
        raise NotImplementedByServer(
            "The gateway does not change which models are served; send "
            "HandleReloadConfigRequest to the model server itself"
        )
