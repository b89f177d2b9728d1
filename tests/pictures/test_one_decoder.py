"""Every file of the corpus is one picture, whoever reads it, or is refused by all."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.grappler import tf_optimizer

from service.gateway.decode.images import (
    ImageOptions,
    as_graph_reads,
    check_image,
    decode_image,
    graph_reads_all,
)
from service.gateway.errors import InvalidInput
from service.gateway.signatures import Signatures
from sluice.pictures.decoding import Unreadable
from sluice.wire.protos.tensorflow_pb2 import DataType, SignatureDef, TensorInfo
from sluice.wire.tensors import encode_shape, string_array
from tests.pictures.corpus import FLAT, HEIGHT, STORED, WIDTH, Picture, corpus
from tests.pictures.verdicts import LEVELS, REFUSED, verdict
from training.data.sources.picture import read_picture
from training.decoding import decode_images

# Pillow tells of metadata that it cannot read, and reads the picture.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

SHAPE = (HEIGHT, WIDTH, 3)
MOST = 1_000_000  # pixels
PICTURES = list(corpus())
# The graph alone knows these and does not read them, since TensorFlow does not.
BY_THE_GATEWAY = (
    "webp",
    "bmp 1",
    "bmp 4",
    "bmp 16",
    "bmp 8, RLE",
    "bmp 32, masks swapped",
    "bmp 24, OS/2",
    "bmp 8, OS/2",
)


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def graph(files):
    return decode_images(files, SHAPE)


def by_the_graph(data):
    """As a client of the model server sees it."""
    try:
        return graph(tf.constant([data]))[0].numpy()
    except tf.errors.InvalidArgumentError as error:
        return error.message


def by_the_gateway_and_the_graph(data):
    """As a client of the gateway sees it that asks a model with a signature `encoded`."""
    try:
        check_image(data, "image", "", MOST)
        inputs = {"image": string_array([data])}
        if not graph_reads_all(inputs):
            inputs = as_graph_reads(inputs)
    except InvalidInput as error:
        return str(error)
    return by_the_graph(inputs["image"][0])


def by_the_gateway(data):
    """As a client of the gateway sees it that asks a model which takes pixels."""
    pixels = TensorInfo(dtype=DataType.DT_FLOAT, tensor_shape=encode_shape([-1, *SHAPE]))
    signatures = Signatures({"serving_default": SignatureDef(inputs={"image": pixels})})
    try:
        return decode_image(data, signatures, ImageOptions(MOST)).inputs["image"][0]
    except InvalidInput as error:
        return str(error)


@pytest.fixture
def by_training(tmp_path):
    def read(data):
        file = tmp_path / "picture"
        file.write_bytes(data)
        try:
            return read_picture(file, SHAPE)
        except Unreadable as error:
            return str(error)

    return read


@pytest.mark.parametrize("picture", PICTURES, ids=[each.name for each in PICTURES])
def test_a_picture_is_the_same_by_every_way(picture: Picture, by_training):
    ways = [by_training, by_the_gateway_and_the_graph, by_the_gateway]
    found = [verdict(way(picture.data), picture.shows) for way in ways]
    assert found == ["", "", ""]
    alone = verdict(by_the_graph(picture.data), picture.shows)
    if alone:  # never a picture that differs
        assert alone.startswith(REFUSED) and picture.name.startswith(BY_THE_GATEWAY)
        assert "the gateway" in alone


def test_the_corpus_has_what_it_says():
    assert len({each.name for each in PICTURES}) == len(PICTURES) > 150
    for number, stored in STORED.items():
        assert number == 1 or not np.array_equal(stored(FLAT), FLAT)


@pytest.mark.parametrize("name", ["jpeg", "jpeg turned 6, II", "png RGB alpha 8", "gif", "bmp 8"])
@pytest.mark.parametrize("shape", [(5, 7, 1), (40, 30, 3)])
def test_a_picture_of_another_size_is_near_by_both_ways(name, shape):
    data = next(each.data for each in PICTURES if each.name == name)
    in_graph = decode_images(tf.constant([data]), shape)[0].numpy()
    pixels = TensorInfo(dtype=DataType.DT_FLOAT, tensor_shape=encode_shape([-1, *shape]))
    signatures = Signatures({"serving_default": SignatureDef(inputs={"image": pixels})})
    query = decode_image(data, signatures, ImageOptions(MOST))
    assert np.abs(query.inputs["image"][0] - in_graph).mean() <= LEVELS


# What is announced, and never decoded


def test_frames_behind_the_first_are_not_looked_at():
    data = bytearray(next(each.data for each in PICTURES if each.name == "gif animated"))
    place = data.rindex(b"\x2c\0\0\0\0")
    data[place + 5 : place + 9] = b"\xff\xff\xff\xff"  # 4 billion pixels
    assert verdict(by_the_graph(bytes(data)), FLAT) == ""


def announcing(name, *places):
    """A file of the corpus that says it is so large: (place, bytes) pairs."""
    data = bytearray(next(each.data for each in PICTURES if each.name == name))
    for at, size in places:
        data[at : at + len(size)] = size
    return bytes(data)


START_OF_FRAME = next(each.data for each in PICTURES if each.name == "jpeg").index(b"\xff\xc0")


@pytest.mark.parametrize(
    "data",
    [
        announcing("png RGB 8", (16, b"\0\1\0\0"), (20, b"\0\1\0\0")),
        announcing("png RGB 8", (16, b"\x7f\xff\xff\xff"), (20, b"\x7f\xff\xff\xff")),
        announcing("bmp 24", (18, b"\0\0\1\0"), (22, b"\0\0\1\0")),
        announcing("bmp 24, top down", (18, b"\0\0\1\0"), (22, b"\0\0\xff\xff")),
        announcing("gif", (6, b"\xff\xff\xff\xff")),
        announcing("jpeg", (START_OF_FRAME + 5, b"\xff\xdc\xff\xdc")),
    ],
    ids=["png", "png of the most", "bmp", "bmp top down", "gif screen", "jpeg"],
)
def test_the_graph_counts_pixels_before_it_decodes_them(data):
    assert "expected an image of at most 268435456 pixels" in by_the_graph(data)


@pytest.mark.parametrize("name", ["gif animated", "jpeg turned 6, MM", "png turned 5", "bmp 8"])
def test_a_file_that_breaks_off_anywhere_is_refused_and_ends_nothing(name, by_training):
    data = next(each.data for each in PICTURES if each.name == name)
    whole = by_the_graph(data)
    for length in range(0, len(data), 1 + len(data) // 25):
        for way in (by_the_graph, by_the_gateway, by_training):
            seen = way(data[:length])
            assert isinstance(seen, str) or np.abs(seen - whole).mean() <= LEVELS


def test_a_format_is_optimised_when_a_file_of_it_comes_and_not_with_every_signature():
    """A format's functions are in the graph that a session runs first as they were written."""
    decode = graph.get_concrete_function()
    with tf.Graph().as_default() as signature:
        files = tf.compat.v1.placeholder(tf.string, [None])
        signature.add_to_collection("train_op", decode(files))  # what is fetched
        written = tf.compat.v1.train.export_meta_graph(graph=signature)
    optimised = tf_optimizer.OptimizeGraph(tf.compat.v1.ConfigProto(), written)
    sizes = {each.signature.name: len(each.node_def) for each in optimised.library.function}
    formats = [
        each
        for each in written.graph_def.library.function
        if any(name in each.signature.name for name in ("_jpeg_", "_png_", "_gif_", "_bmp_"))
    ]
    assert len(formats) == 4
    for each in formats:
        assert sizes[each.signature.name] == len(each.node_def)
