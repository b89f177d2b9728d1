"""KServe's REST (v1, v2) and gRPC clients: `python kserve_client.py http://HOST:PORT HOST:PORT`."""

import asyncio
import sys

import grpc
import httpx
import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)


async def main(http_url, grpc_address):
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        await v1(client, http_url)
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        for check in (rest_health, rest_infer, rest_every_dtype, rest_errors):
            await check(client, http_url)
            print("passed rest v2", check.__name__)
    async with InferenceGRPCClient(grpc_address) as client:
        for check in (grpc_health, grpc_infer, grpc_every_dtype, grpc_errors):
            await check(client)
            print("passed grpc", check.__name__)


def given(name, array, datatype, **options):
    tensor = InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **options)
    return tensor


def pair(**options):
    return InferRequest(
        "pair",
        [
            given("image", np.ones((2, 2, 2, 1), np.float32), "FP32", **options),
            given("meta", np.zeros((2, 3), np.float32), "FP32", **options),
        ],
    )


def dtypes(**options):
    text = np.array(["café".encode()], np.object_)
    return InferRequest(
        "dtypes",
        [
            given(name, array, datatype, **options)
            for name, array, datatype in (
                ("i32", np.int32([-7]), "INT32"),
                ("i64", np.int64([2**40]), "INT64"),
                ("u8", np.uint8([254]), "UINT8"),
                ("f64", np.float64([1.5]), "FP64"),
                ("flag", np.array([True]), "BOOL"),
                ("text", text, "BYTES"),
            )
        ],
    )


def half(**options):
    return InferRequest("affine", [given("x", np.float16([1, 2]), "FP16", **options)])


def check_pair(response):
    assert response.get_output_by_name("score").as_numpy().tolist() == [[4.0], [4.0]]
    assert response.get_output_by_name("ranks").as_numpy().tolist() == [[4.0, 0.0, 0.0]] * 2


def check_dtypes(response):
    values = {each.name: each.as_numpy().tolist() for each in response.outputs}
    text = values.pop("text")[0]
    assert (text.encode() if isinstance(text, str) else text) == "CAFé".encode()
    values.pop("raw_bytes")
    assert values == {"i32": [-6], "i64": [2**40 + 1], "u8": [255], "f64": [0.5], "flag": [False]}


def check_half(response):
    assert response.get_output_by_name("y").as_numpy().tolist() == [3.5, 4.0]


async def v1(client, url):
    assert await client.is_server_live(url)
    reply = await client.infer(url, {"instances": [1, 2]}, model_name="affine")
    assert reply == {"predictions": [3.5, 4.0]}
    print("passed rest v1 infer")
    try:
        await client.infer(url, {"instances": [1]}, model_name="nope")
    except httpx.HTTPStatusError as error:
        assert "nope" in str(error) and error.response.status_code == 404
        print("passed rest v1 errors")


async def rest_health(client, url):
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "affine")
    assert not await client.is_model_ready(url, "nope")


async def rest_infer(client, url):
    for binary in (True, False):
        check_pair(await client.infer(url, pair(binary_data=binary), model_name="pair"))
    check_half(await client.infer(url, half(), model_name="affine"))


async def rest_every_dtype(client, url):
    for binary in (True, False):
        check_dtypes(await client.infer(url, dtypes(binary_data=binary), model_name="dtypes"))


async def rest_errors(client, url):
    try:
        await client.infer(url, pair(), model_name="nope")
    except httpx.HTTPStatusError as error:
        assert "nope" in str(error) and error.response.status_code == 404
    else:
        raise AssertionError("no error")


async def grpc_health(client):
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("affine")
    assert not await client.is_model_ready("nope")


async def grpc_infer(client):
    for binary in (True, False):
        check_pair(await client.infer(pair(binary_data=binary)))
    check_half(await client.infer(half()))


async def grpc_every_dtype(client):
    for binary in (True, False):
        check_dtypes(await client.infer(dtypes(binary_data=binary)))


async def grpc_errors(client):
    request = pair()
    request.model_name = "nope"
    try:
        await client.infer(request)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND and "nope" in error.details()
    else:
        raise AssertionError("no error")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
