"""What goes over the wire beside the tensors: TLS, headers, sizes."""

import ssl
import subprocess
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import pytest

from sluice import TooLarge, Unavailable
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.protos.serving_pb2_grpc import (
    ModelServiceServicer,
    add_ModelServiceServicer_to_server,
)

LIMIT_BYTES = 1000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A directory with `cert` and `key` for 127.0.0.1, signed by itself."""
    directory = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            "key",
            "-out",
            "cert",
        ],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return directory


class Models(ModelServiceServicer):
    """Answers version 1, or the caller's own, of every model."""

    def GetModelStatus(self, _request, context):  # noqa: N802 - gRPC's name
        version = int(dict(context.invocation_metadata()).get("x-version", 1))
        return serving.GetModelStatusResponse(
            model_version_status=[serving.ModelVersionStatus(version=version)]
        )


class Handler(BaseHTTPRequestHandler):
    """The same over HTTP."""

    def do_GET(self):
        version = self.headers.get("X-Version", 1)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"model_version_status": [{"version": "%d"}]}' % int(version))

    def log_message(self, *_):
        pass


class WebServer(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Silent where a client ends the handshake."""


@pytest.fixture(scope="module")
def secure_urls(certificate):
    """By scheme, a server of the two above behind TLS."""
    key, cert = (certificate / "key").read_bytes(), (certificate / "cert").read_bytes()
    rpc = grpc.server(
        futures.ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", LIMIT_BYTES)]
    )
    add_ModelServiceServicer_to_server(Models(), rpc)
    rpc_port = rpc.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
    rpc.start()
    web = WebServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert", certificate / "key")
    web.socket = context.wrap_socket(web.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    yield {"http": f"https://127.0.0.1:{web.server_port}", "grpc": f"grpcs://127.0.0.1:{rpc_port}"}
    web.shutdown()
    web.server_close()
    thread.join()
    rpc.stop(None).wait()


def test_tls_and_headers(connect, scheme, secure_urls, certificate):
    client = connect(secure_urls[scheme], ca_file=certificate / "cert", headers={"X-Version": "7"})
    assert client.status("m")[0].version == 7


def test_a_certificate_that_nobody_vouches_for(connect, scheme, secure_urls):
    with pytest.raises(Unavailable):
        connect(secure_urls[scheme], retries=0, timeout_s=5).status("m")


def test_large_tensors_both_ways(client):
    rows = np.random.default_rng(1).random((100_000, 2, 3), np.float32)  # 2.4 MB
    matrices = np.concatenate([rows, rows])  # over gRPC's own 4 MB
    assert np.array_equal(client.predict("echo", matrices)["matrix"], matrices)


@pytest.mark.parametrize("kind", ["grpc", "grpc-async"])
def test_a_request_over_the_limit(connect, secure_urls, certificate):
    client = connect(secure_urls["grpc"], ca_file=certificate / "cert")
    with pytest.raises(TooLarge, match="larger than"):
        client.status("m" * LIMIT_BYTES)
