"""What a gRPC client learns of a bug of the gateway's, and who counts of those it sends away."""

import asyncio
import gzip

import grpc
import pytest

from service.gateway.error_responses import FAILED
from service.gateway.errors import MalformedRequest
from service.gateway.gateway import Gateway
from service.gateway.rpc.arrivals import Arrivals
from service.gateway.rpc.edge import Edge, Method
from service.gateway.rpc.oip import Oip
from service.gateway.rpc.open_services import OpenServices
from service.gateway.rpc.packing import AS_THEY_CAME
from service.gateway.settings import Settings
from sluice.wire.contract import HEALTH_SERVICE, OIP_SERVICE
from sluice.wire.health import HealthService, add_health
from sluice.wire.model_ref import ModelRef


def told_of(error):
    """(code, details) of a call that fails by it."""

    async def test():
        gateway = Gateway.of(Settings())
        edge = Edge(gateway, Arrivals(gateway.settings))

        def parse(_):
            raise error

        server = grpc.aio.server()
        methods = {"M": Method("oip-grpc", "live", parse, parse)}
        server.add_generic_rpc_handlers((edge.handlers("s", methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                await channel.unary_unary("/s/M")(b"", timeout=60)
        await server.stop(None)
        return caught.value.code(), caught.value.details()

    return asyncio.run(test())


def test_what_a_bug_says_is_for_the_log(caplog):
    assert told_of(RuntimeError("/etc/a-path")) == (grpc.StatusCode.INTERNAL, FAILED)
    assert "/etc/a-path" in caplog.text


@pytest.mark.parametrize("letter", ["x", "\N{CYRILLIC SMALL LETTER A}", "\N{EURO SIGN}"])
def test_an_error_of_any_letters_is_told_as_far_as_a_client_takes_it(letter):
    code, details = told_of(MalformedRequest(letter * 10_000))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert set(details) == {letter}


def test_a_message_that_is_unpacked_and_read_holds_its_place_and_its_bytes():
    held = []

    async def test():
        gateway = Gateway.of(Settings())
        admission, aside = gateway.admission, gateway.predictions.aside
        plain = b"\x0a\x01m" + bytes(1 << 20)
        packed = gzip.compress(plain)

        async def look(work, *arguments):
            held.append((admission.in_flight, admission.bytes_in_flight))
            return await aside(work, *arguments)

        def parse(data):
            if data == plain:
                held.append((admission.in_flight, admission.bytes_in_flight))
            return ModelRef("m"), None

        async def answer(*_):
            return b""

        gateway.predictions.aside = look
        server = grpc.aio.server(options=[AS_THEY_CAME])
        edge = Edge(gateway, Arrivals(gateway.settings))
        methods = {"M": Method("oip-grpc", "infer", parse, answer)}
        server.add_generic_rpc_handlers((edge.handlers("s", methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.unary_unary("/s/M")(packed, timeout=60)
        await server.stop(None)
        assert held == [(1, len(packed)), (1, len(plain))]
        assert (admission.in_flight, admission.bytes_in_flight) == (0, 0)

    asyncio.run(test())


class NoRoom(Arrivals):
    """For any message."""

    def _is_full(self):
        return True


def test_of_those_who_are_sent_away_only_requests_are_counted_as_refused():
    """Calls of health are in no number of requests, so they are in none of refusals either."""

    async def test():
        gateway = Gateway.of(Settings(access_log="off"))
        arrivals, server = NoRoom(gateway.settings), grpc.aio.server()
        methods = Oip(gateway.predictions).methods()
        server.add_generic_rpc_handlers((Edge(gateway, arrivals).handlers(OIP_SERVICE, methods),))
        add_health(OpenServices(server, arrivals, 60.0), HealthService([OIP_SERVICE]))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            calls = [
                channel.unary_unary(f"/{HEALTH_SERVICE}/Check")(b"", timeout=60),
                channel.unary_stream(f"/{HEALTH_SERVICE}/Watch")(b"", timeout=60),
                channel.unary_unary(f"/{OIP_SERVICE}/ServerLive")(b"", timeout=60),
            ]
            codes = [await call.code() for call in calls]
        await server.stop(None)
        return codes, gateway.telemetry.exposition()[0].decode()

    codes, metrics = asyncio.run(test())
    assert codes == [grpc.StatusCode.UNAVAILABLE] * 3
    requests = [line for line in metrics.splitlines() if line.startswith("sluice_requests_total{")]
    assert [line.rpartition(" ")[2] for line in requests if "UNAVAILABLE" in line] == ["1.0"]
    assert 'sluice_refused_total{reason="Busy"} 1.0' in metrics
