"""Arrays to the model servers and back: together with those that wait, or as a call by itself."""

from service.gateway.answer import Answer
from service.gateway.caller import Caller
from service.gateway.forwarded import Forwarded, Unread
from service.gateway.joining import Joining
from service.gateway.model_server import (
    PREDICT,
    ModelServer,
    addressed,
    decode_predict_response,
    encode_predict_request,
)
from service.gateway.patterns import named_by
from service.gateway.server import Server
from service.gateway.settings import Settings
from service.gateway.threads import Threads
from service.gateway.traffic import Call
from sluice.wire.model_ref import ModelRef

LARGE = 1 << 20  # bytes of tensors, which are only copied


class Calls:
    """Of one worker: `joining` asks for requests, `send` makes the calls. For one event loop."""

    def __init__(self, settings: Settings, model_server: ModelServer, threads: Threads) -> None:
        self._model_server, self.threads = model_server, threads
        self.joining = Joining(
            model_server.servers,
            self.send,
            max_rows=settings.max_joined_rows,
            max_wait_s=settings.max_wait_s,
            joins=named_by(settings.join_models),
        )

    async def send(self, server: Server, call: Call, *, weighs: bool = True) -> Answer:
        """One call to one server, which is judged by it where it `weighs`. Raises as
        `ModelServer.call_on` does."""
        kind, run = call.kind, self.threads.run_if_large
        encode = (encode_predict_request, kind.model, kind.signature, call.inputs, kind.outputs)
        request = await run(call.size, *encode, most=LARGE)
        reply = await self._model_server.call_on(
            server, PREDICT, request, kind.model, call.caller, weighs=weighs
        )
        return await run(len(reply), decode_predict_response, reply, most=LARGE)

    async def send_on(
        self, server: Server, asked: Forwarded, model: ModelRef, caller: Caller
    ) -> Unread:
        """The same of what goes as it came, to another version of its model; it weighs nothing."""
        request = addressed(asked.method, asked.request, model)
        reply = await self._model_server.call_on(
            server, asked.method, request, model, caller, weighs=False
        )
        return Unread(asked.method, reply, model)
