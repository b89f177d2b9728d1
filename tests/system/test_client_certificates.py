"""Clients that their certificates speak for: real handshakes, over HTTP and gRPC."""

import http.client
import json

import grpc
import numpy as np
import pytest
import trustme

from service.gateway.access.keys import digest_of, new_key
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub
from sluice.wire.tensors import encode_tensor
from tests.gateway.access import STATUS_OF
from tests.system.certificates import Folder

PATIENCE_S = 60
DESK = new_key("desk")
FILE = f"""
[keys.phone]
certificates = ["DNS:phone.acme.example", "IP:10.1.2.3"]
models = ["m"]

[keys.desk]
sha256 = "{digest_of(DESK)}"
certificates = ["subject:CN=desk,OU=Hall,O=Acme"]
models = ["*"]

[keys.gone]
certificates = ["email:gone@acme.example"]
models = ["*"]
revoked = true

[keys.other]
certificates = ["DNS:other.acme.example"]
models = ["n"]

[keys.few]
certificates = ["DNS:http.few.example", "DNS:grpc.few.example"]
models = ["*"]
requests_per_day = 2
"""
SUBJECT = {"common_name": "desk", "organization_unit_name": "Hall", "organization_name": "Acme"}
SHOWN = {"x-api-key": DESK}
# What is in the certificate, what is shown beside it, and what comes of it.
TABLE = {
    "a name": (["phone.acme.example"], {}, {}, 200, ""),
    "one of several": (["a.example", "10.1.2.3"], {}, {}, 200, ""),
    "the subject": (["a.example"], SUBJECT, {}, 200, ""),
    "nobody's": (["a.example"], {}, {}, 401, "A key is needed here: "),
    "a part of a name": (["acme.example"], {}, {}, 401, "A key is needed here: "),
    "a revoked key's": (["gone@acme.example"], {}, {}, 401, 'The key "gone" has been revoked'),
    "for another model": (["other.acme.example"], {}, {}, 403, 'The key "other" may not do'),
    "and a key, which counts": (["other.acme.example"], {}, SHOWN, 200, ""),
    "and a header of a proxy's": (
        ["a.example"],
        {},
        {"x-ssl-client-s-dn": "CN=desk,OU=Hall,O=Acme", "x-forwarded-client-cert": "DNS=phone"},
        401,
        "A key is needed here: ",
    ),
    "and a wrong key": (["phone.acme.example"], {}, {"x-api-key": "x"}, 401, "The key is not kn"),
}


@pytest.fixture
def gateway(launch_tls, folder):
    folder.replace("access.toml", FILE.encode())
    return launch_tls(**folder.settings(folder["ca.pem"]), access_file=folder["access.toml"])


def over_http(gateway, folder: Folder, shown: trustme.LeafCert, headers, path=""):
    context = folder.client_context(shown)
    connection = http.client.HTTPSConnection("localhost", gateway.http_port, context=context)
    if path:
        connection.request("GET", path, headers=headers)
    else:
        body = json.dumps({"instances": [1.0, 2.0]})
        connection.request("POST", "/v1/models/m:predict", body, headers)
    reply = connection.getresponse()
    document = json.loads(reply.read()) if reply.status != 200 else {}
    connection.close()
    return reply.status, document.get("error", "")


def over_grpc(gateway, folder: Folder, shown: trustme.LeafCert, headers):
    request = PredictRequest()
    request.model_spec.name = "m"
    request.inputs["x"].CopyFrom(encode_tensor(np.float32([1, 2])))
    credentials = grpc.ssl_channel_credentials(
        folder.authority.cert_pem.bytes(),
        shown.private_key_pem.bytes(),
        shown.cert_chain_pems[0].bytes(),
    )
    with grpc.secure_channel(f"localhost:{gateway.grpc_port}", credentials) as channel:
        try:
            PredictionServiceStub(channel).Predict(
                request, timeout=PATIENCE_S, metadata=tuple(headers.items())
            )
        except grpc.RpcError as error:
            return STATUS_OF[error.code()], error.details()
    return 200, ""


def test_a_certificate_stands_for_the_key_that_names_it(gateway, folder):
    issue = folder.authority.issue_cert
    found, expected = {}, {}
    for case, (names, subject, headers, status, message) in TABLE.items():
        shown = issue(*names, **subject)
        for door in (over_http, over_grpc):
            code, said = door(gateway, folder, shown, headers)
            found[case, door.__name__] = code, said[: len(message)]
            expected[case, door.__name__] = status, message
    assert found == expected
    for door, name in ((over_http, "http.few.example"), (over_grpc, "grpc.few.example")):
        assert door(gateway, folder, issue(name), {})[0] == 200
    for door in (over_http, over_grpc):  # the limits are the key's, whatever its clients speak
        code, said = door(gateway, folder, issue("http.few.example"), {})
        assert (code, said[:30]) == (429, "The 2 requests of this day (UT")
    assert over_http(gateway, folder, issue("phone.acme.example"), {}, "/models/")[0] == 200
    assert over_http(gateway, folder, issue("a.example"), {}, "/models/")[0] == 401
    gateway.wait_for(r"phone@127\.0\.0\.1 \S+ POST /v1/models/m:predict 200")
    gateway.wait_for(r"phone@ipv\S+ \S+ GRPC /tensorflow.serving.PredictionService/Predict OK")
    assert "BEGIN CERTIFICATE" not in gateway.log and DESK not in gateway.log
