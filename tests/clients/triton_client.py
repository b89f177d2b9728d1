"""Triton's HTTP and gRPC clients: `python triton_client.py http://HOST:PORT HOST:PORT`."""

import queue
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http
from ml_dtypes import bfloat16
from tritonclient.utils import InferenceServerException


def main(http_url, grpc_address):
    http = tritonclient.http.InferenceServerClient(http_url.removeprefix("http://"))
    grpc = tritonclient.grpc.InferenceServerClient(grpc_address)
    for name, module, client in (
        ("http", tritonclient.http, http),
        ("grpc", tritonclient.grpc, grpc),
    ):
        for check in CHECKS:
            check(module, client)
            print("passed", name, check.__name__)
    for check in HTTP_CHECKS:
        check(tritonclient.http, http)
        print("passed http", check.__name__)


def given(module, name, array, datatype, **options):
    tensor = module.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **options)
    return tensor


def health(_, client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("affine")
    assert client.is_model_ready("affine", "1")
    assert not client.is_model_ready("affine", "9")
    assert not client.is_model_ready("nope")


def metadata(_, client):
    server, model = client.get_server_metadata(), client.get_model_metadata("pair")
    assert "sluice" in str(server)
    assert all(word in str(model) for word in ("image", "meta", "score", "ranks", "FP32"))


def several_inputs_and_outputs(module, client):
    inputs = [
        given(module, "image", np.ones((2, 2, 2, 1), np.float32), "FP32"),
        given(module, "meta", np.zeros((2, 3), np.float32), "FP32"),
    ]
    result = client.infer("pair", inputs, request_id="7")
    assert result.as_numpy("score").tolist() == [[4.0], [4.0]]
    assert result.as_numpy("ranks").tolist() == [[4.0, 0.0, 0.0]] * 2
    outputs = [module.InferRequestedOutput("score")]
    result = client.infer("pair", inputs, outputs=outputs)
    assert result.as_numpy("score").tolist() == [[4.0], [4.0]]
    assert result.as_numpy("ranks") is None


def every_dtype(module, client, **options):
    text = np.array(["café".encode()], np.object_)
    inputs = [
        given(module, name, array, datatype, **options)
        for name, array, datatype in (
            ("i32", np.int32([-7]), "INT32"),
            ("i64", np.int64([2**40]), "INT64"),
            ("u8", np.uint8([254]), "UINT8"),
            ("f64", np.float64([1.5]), "FP64"),
            ("flag", np.array([True]), "BOOL"),
            ("text", text, "BYTES"),
        )
    ]
    result = client.infer("dtypes", inputs)
    assert {
        name: result.as_numpy(name).tolist() for name in ("i32", "i64", "u8", "f64", "flag")
    } == {"i32": [-6], "i64": [2**40 + 1], "u8": [255], "f64": [0.5], "flag": [False]}
    (found,) = result.as_numpy("text").tolist()
    assert (found.encode() if isinstance(found, str) else found) == "CAFé".encode()


def half_precision(module, client):
    result = client.infer("affine", [given(module, "x", np.float16([1, 2]), "FP16")])
    assert result.as_numpy("y").tolist() == [3.5, 4.0]


def brain_float(module, client):
    result = client.infer("affine", [given(module, "x", np.array([1, 2], bfloat16), "BF16")])
    assert result.as_numpy("y").tolist() == [3.5, 4.0]


def versions(module, client):
    inputs = [given(module, "x", np.float32([1]), "FP32")]
    assert client.infer("affine", inputs, model_version="1").as_numpy("y").tolist() == [2.5]
    assert client.infer("affine", inputs, model_version="2").as_numpy("y").tolist() == [3.5]


def a_signature_by_its_name(module, client):
    inputs = [given(module, "matrix", np.ones((1, 2, 3), np.float32), "FP32")]
    result = client.infer("echo", inputs, parameters={"signature_name": "total"})
    assert result.as_numpy("total").tolist() == [6.0]


def a_timeout_of_its_own(module, client):
    inputs = [given(module, "x", np.float32([1]), "FP32")]
    result = client.infer("affine", inputs, timeout=30_000_000)
    assert result.as_numpy("y").tolist() == [3.5]


def errors(module, client):
    inputs = [given(module, "x", np.float32([1]), "FP32")]
    assert "nope" in refused(client, "nope", inputs)
    wrong = [given(module, "matrix", np.ones((1, 2, 2), np.float32), "FP32")]
    assert "inputs.matrix: expected float32 [N,2,3], got [1,2,2]" in refused(client, "echo", wrong)


def calls_at_the_same_time(module, client):
    inputs = [given(module, "x", np.float32([1]), "FP32")]
    if module is tritonclient.http:
        results = [client.async_infer("affine", inputs).get_result() for _ in range(8)]
    else:
        answered = queue.Queue()

        def keep(result, error):
            answered.put(error or result)

        for _ in range(8):
            client.async_infer("affine", inputs, callback=keep)
        results = [answered.get(timeout=30) for _ in range(8)]
    assert [result.as_numpy("y").tolist() for result in results] == [[3.5]] * 8


def refused(client, model, inputs):
    try:
        client.infer(model, inputs)
    except InferenceServerException as error:
        return str(error)
    raise AssertionError("no error")


def json_tensors(module, client):
    every_dtype(module, client, binary_data=False)


def json_outputs(module, client):
    inputs = [given(module, "x", np.float32([1, 2]), "FP32", binary_data=False)]
    outputs = [module.InferRequestedOutput("y", binary_data=False)]
    assert client.infer("affine", inputs, outputs=outputs).as_numpy("y").tolist() == [3.5, 4.0]


def as_json(module, method, *args):
    """What the method answers, of which gRPC makes a message or, where told to, JSON."""
    return method(*args, as_json=True) if module is tritonclient.grpc else method(*args)


def repository_index(module, client):
    found = as_json(module, client.get_model_repository_index)
    entries = found["models"] if module is tritonclient.grpc else found
    ready = [each for each in entries if each["state"] == "READY"]
    assert {(each["name"], each["version"]) for each in ready} >= {("affine", "1"), ("affine", "2")}


def statistics(module, client):
    def successes():
        found = as_json(module, client.get_inference_statistics, "affine", "1")["model_stats"]
        (one,) = [each for each in found if each.get("version") == "1"]
        success = one["inference_stats"]["success"]
        return int(success.get("count", 0)), int(one.get("inference_count", 0))

    requests, rows = successes()
    inputs = [given(module, "x", np.float32([1, 2, 3]), "FP32")]
    client.infer("affine", inputs, model_version="1")
    assert successes() == (requests + 1, rows + 3)
    everything = as_json(module, client.get_inference_statistics)["model_stats"]
    assert "affine" in {each["name"] for each in everything}


def compressed_bodies(module, client):
    inputs = [given(module, "x", np.zeros(10_000, np.float32), "FP32")]
    for algorithm in ("gzip", "deflate"):
        result = client.infer(
            "affine",
            inputs,
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        assert result.as_numpy("y").tolist() == [3.0] * 10_000


CHECKS = [
    health,
    metadata,
    several_inputs_and_outputs,
    every_dtype,
    half_precision,
    brain_float,
    versions,
    a_signature_by_its_name,
    a_timeout_of_its_own,
    errors,
    calls_at_the_same_time,
    repository_index,
    statistics,
]
HTTP_CHECKS = [json_tensors, json_outputs, compressed_bodies]

if __name__ == "__main__":
    main(*sys.argv[1:])
