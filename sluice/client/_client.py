"""The client for programs that wait: the same methods as the one for asyncio."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Self

from sluice.client._arguments import model_ref, speaks_grpc, values_of, with_key
from sluice.client._flows import Flows
from sluice.client._inputs import Value
from sluice.client._running import Transport, run_flow
from sluice.client.results import ModelMetadata, Prediction, VersionStatus

DEFAULT_TIMEOUT_S = 30.0


class Client:
    """A client of one server, for any number of threads.

    `url` is `http://HOST:PORT` of a Sluice gateway (Open Inference Protocol, binary tensors), or
    `grpc://HOST:PORT` of anything that serves TensorFlow Serving's PredictionService; `https://`
    and `grpcs://` are the same over TLS, `ca_file` (PEM) being trusted in place of the usual
    authorities. Nothing is connected before the first call; make the client after a fork.

    `timeout_s` is what a call may take in all. A server that cannot be reached, that is starting
    or overloaded (UNAVAILABLE, RESOURCE_EXHAUSTED, 429, 502, 503) is asked again, up to `retries`
    times, with pauses from 0.1 to 2 s, within `timeout_s`; a call that ran out of time never is.
    `headers` go with every call, over gRPC as its metadata. So does `api_key`, where the server
    asks for one: an API key, or a token (docs/security.md). Keep it to servers that you reach over
    TLS or on this machine.

    Every method raises a ClientError (sluice/client/errors.py draws the tree).

    >>> with Client("http://localhost:1") as client:  # where nobody listens
    ...     client.ready()
    False
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = 3,
        headers: Mapping[str, str] | None = None,
        api_key: str | None = None,
        ca_file: str | PathLike[str] | None = None,
    ) -> None:
        given = with_key(headers or {}, api_key)
        self._transport: Transport
        if speaks_grpc(url):
            from sluice.client._grpc import GrpcTransport

            self._transport = GrpcTransport(url, given, ca_file)
        else:
            from sluice.client._http import HttpTransport

            self._transport = HttpTransport(url, given, ca_file)
        self._flows = Flows(timeout_s, retries)

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Value] | Value | None = None,
        /,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
        **named: Value,
    ) -> Prediction:
        """The model's outputs for inputs given by their names: `predict("digits", image=...)`.

        An input is an array, or what numpy makes one of, batch first, or one picture [H, W] or
        [H, W, C]; or a file (its path, its bytes, the open file, or a picture of Pillow's), or a
        list of files, one a row. A str is a path, and for an input that takes text the text.
        `inputs` is the model's only input, or a mapping where a name cannot be a keyword. Files go
        to the signature `encoded`, arrays to `serving_default`, and of uint8 to `pixels` where the
        model has it, if `signature` does not say otherwise; a model without `encoded` has the
        gateway decode files (over HTTP). Arrays are cast to the model's dtypes where that changes
        no value but for a float's precision; the model's metadata, asked for once, names them.

        Of `version` and `label` at most one; without them the server's newest version answers.
        All `outputs` come where none is named. Raises OSError for a file that cannot be read.
        """
        return run_flow(
            self._transport,
            self._flows.predict(
                model_ref(model, version, label),
                values_of(inputs, named),
                signature,
                outputs,
                timeout_s,
            ),
        )

    def explain(
        self,
        model: str,
        inputs: Mapping[str, Value] | Value | None = None,
        /,
        *,
        class_index: int | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
        **named: Value,
    ) -> Prediction:
        """Where in its pictures the model sees a class: `explain("digits", image="3.png")`.

        Inputs are those of `predict`. The class is the one with the highest score, or that of
        `class_index`; where several heads name classes, `HEAD_class=[7]` beside the inputs. The
        answer has `heatmap` [N, h, w] of 0..1, to be stretched over the picture (`heatmap_INPUT`
        where several inputs are pictures), `class` [N], its index, and `score` [N]; each behind
        the name of its head where there are several. BadRequest for a model that cannot say why.
        """
        return run_flow(
            self._transport,
            self._flows.explain(
                model_ref(model, version, label), values_of(inputs, named), class_index, timeout_s
            ),
        )

    def metadata(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
    ) -> ModelMetadata:
        """The model's signatures: the names, dtypes and shapes of what it takes and gives."""
        return run_flow(
            self._transport, self._flows.metadata(model_ref(model, version, label), timeout_s)
        )

    def status(self, model: str, *, timeout_s: float | None = None) -> list[VersionStatus]:
        """The model's versions, newest first."""
        return run_flow(self._transport, self._flows.status(model, timeout_s))

    def ready(self, model: str | None = None, *, timeout_s: float | None = None) -> bool:
        """Whether the server, or one of its models, takes requests now; asked once. A server of
        gRPC alone is ready when it answers."""
        return run_flow(self._transport, self._flows.ready(model, timeout_s))

    def models(self, *, timeout_s: float | None = None) -> list[str]:
        """The models that the gateway has been told of. TensorFlow Serving's gRPC has no such
        call: NotSupported."""
        return run_flow(self._transport, self._flows.models(timeout_s))

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
