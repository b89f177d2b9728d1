"""Image files, raw or as fields of a form, to a query.

A signature that takes strings (`encoded`, docs/contract.md) gets the files as they are: the pixels
are then decoded in the model's graph, and what is fed to the network is what training fed to it.
Only their headers are read here, but for the few files that TensorFlow does not read, which become
PNG. For a model without one all are decoded and resized here.
"""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from service.gateway.decode.foreign import door
from service.gateway.decode.json_documents import parse_json
from service.gateway.decode.pixels import RESIZES, damaged, decode_pixels, takes_pixels
from service.gateway.decode.slips import slip_in_file
from service.gateway.decode.values import array_of
from service.gateway.errors import (
    InputTooLarge,
    InvalidInput,
    MalformedRequest,
    UnknownInput,
    UnsupportedMediaType,
    did_you_mean,
    shown,
)
from service.gateway.query import Query, TfsQuery
from service.gateway.signatures import Signatures
from sluice.pictures.decoding import Unreadable, for_graph, graph_reads
from sluice.pictures.formats import EXPECTED, foreign, format_of
from sluice.pictures.gif import MAX_BLOCKS, pixels_of_frames
from sluice.pictures.webp import webp_header
from sluice.wire.contract import DEFAULT_SIGNATURE, ENCODED_SIGNATURE, TAKE_FILES
from sluice.wire.protos.serving_pb2 import Input
from sluice.wire.protos.tensorflow_pb2 import Example
from sluice.wire.signature import Signature, TensorSpec
from sluice.wire.tensors import Array

AnyQuery = TypeVar("AnyQuery", bound=Query)
# Pillow goes through what stands before an image's size at up to 0.3 us a byte. Phones put some
# megabytes of metadata there.
_HEADER_BYTES = 4 << 20


class ImageOptions(NamedTuple):
    """How a client wants its files read."""

    max_pixels: int
    signature_name: str | None = None  # `encoded`, or the default where there is none
    resize: str = "stretch"


@door("The image")
def decode_image(body: bytes, signatures: Signatures, options: ImageOptions) -> TfsQuery:
    """One image file as the body: a batch of one for the only input."""
    signature = _image_signature(signatures, options)
    if len(signature.required) != 1:
        raise UnknownInput(
            f'Signature "{signature.name}" has the inputs '
            f"{', '.join(signature.required)}; send multipart/form-data "
            "with one field for each"
        )
    ((name, spec),) = signature.required.items()
    return TfsQuery(signature, {name: _files([body], spec, options)}, is_file=True)


@door("The form")
def decode_form(
    files: Mapping[str, Sequence[bytes]],
    texts: Mapping[str, Sequence[str]],
    signatures: Signatures,
    options: ImageOptions,
) -> TfsQuery:
    """Form fields named as the inputs; a field that comes several times makes a batch.

    A file is an image; a text is one row of JSON for an input that takes numbers, and itself for
    one that takes strings under another signature than `encoded`.
    """
    signature = _image_signature(signatures, options, takes_files=bool(files))
    if not files and not texts:
        raise MalformedRequest(
            f"The form has no fields; expected one for each of {', '.join(signature.inputs)}"
        )
    for name in [*files, *texts]:
        if name not in signature.inputs:
            raise UnknownInput(
                f'Signature "{signature.name}" has no input "{shown(name)}"'
                f"{did_you_mean(name, signature.inputs)}{_no_document(texts.get(name, ()))}"
            )
    inputs = {name: _files(files[name], signature.inputs[name], options) for name in files}
    inputs |= {name: _texts(texts[name], signature.inputs[name], signature) for name in texts}
    return TfsQuery(signature, inputs, is_file=True)


def _no_document(texts: Sequence[str]) -> str:
    """What is said of a field that holds a whole request."""
    if not any(text.lstrip().startswith("{") for text in texts):
        return ""
    return ". A field is one input; a JSON document is the body by itself (curl: -d @FILE)"


@door("The request")
def check_content(query: AnyQuery, max_pixels: int) -> AnyQuery:
    """`query`, no picture of which has more than `max_pixels` pixels: InputTooLarge if one has.

    A picture of 30,000 x 30,000 pixels is a few kilobytes of PNG, and 2.7 GB in the model server.
    Strings for a signature that takes files are images, or InvalidInput; any other string is one
    where it starts as one.
    """
    all_are_images = query.signature.name in TAKE_FILES
    for name, array in query.inputs.items():
        # Unknown names, and strings for numbers, are refused with the signature's other rules.
        if array.dtype.kind == "O" and name in query.signature.inputs:
            for index, data in enumerate(array.ravel()):
                check = check_image if all_are_images else _check_unknown
                check(data, name, f"row {index}", max_pixels)
    return query


@door("The Input")
def check_examples(examples: Input, max_pixels: int) -> Input:
    """`examples`, where every bytes feature that is a picture is held to the same rule."""
    shared = examples.example_list_with_context
    _check_example(shared.context, "context", max_pixels)
    for each in (examples.example_list.examples, shared.examples):
        for index, example in enumerate(each):
            _check_example(example, f"example {index}", max_pixels)
    return examples


def _check_example(example: Example, at: str, max_pixels: int) -> None:
    for name, feature in example.features.feature.items():
        for data in feature.bytes_list.value:
            _check_unknown(data, shown(name), at, max_pixels)


def _check_unknown(data: bytes, name: str, at: str, max_pixels: int) -> None:
    """The same for bytes that can be anything, where they are a picture by their first ones; they
    are left as they are, so that none may come that ends TensorFlow's process."""
    kind = format_of(data)
    # A text can start as a BMP file does.
    if kind is None or (kind == "BMP" and _size_of(data) is None):
        return
    check_image(data, name, at, max_pixels)
    header = webp_header(data)
    if header and header.animated:
        raise InvalidInput(name, "a WebP file of one picture", "an animated one", at)


def check_image(data: bytes, name: str, at: str, max_pixels: int) -> None:
    """Raises InvalidInput for no image, InputTooLarge for one of more than `max_pixels` pixels, or
    a GIF of so many in all its frames: a graph may decode all for the first of them.
    """
    size = _size_of(data)
    if size is None:
        known = foreign(data)
        came = (_what_came(data), at, slip_in_file(data))
        got = (known.what, at, known.instead) if known else came
        raise InvalidInput(name, EXPECTED, *got)
    width, height = size
    frames = pixels_of_frames(data) if format_of(data) == "GIF" else 0  # their pixels
    if frames is None:
        raise InvalidInput(name, f"a GIF of at most {MAX_BLOCKS} blocks", "one of more", at)
    pixels = max(width * height, frames)
    if pixels > max_pixels:
        raise InputTooLarge(
            name,
            f"an image of at most {max_pixels} pixels",
            f"{frames} in all frames"
            if frames > width * height
            else f"{width} x {height} = {pixels}",
            at,
            "SLUICE_MAX_IMAGE_PIXELS; scale it down",
        )


def graph_reads_all(inputs: Mapping[str, Array]) -> bool:
    """Whether the files of an `encoded` request can go to the model server as they are."""
    strings = (array for array in inputs.values() if array.dtype.kind == "O")
    return all(graph_reads(data) for array in strings for data in array.ravel())


@door("The request")
def as_graph_reads(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs of an `encoded` request that has passed `check_content`, those files as PNG that
    the graph does not read. Raises InvalidInput for a damaged one."""
    return {
        name: _as_graph_reads(array, name) if array.dtype.kind == "O" else array
        for name, array in inputs.items()
    }


def _as_graph_reads(files: Array, name: str) -> Array:
    read = np.empty(files.size, object)
    for index, data in enumerate(files.ravel()):
        try:
            read[index] = for_graph(data)
        except Unreadable as error:
            raise damaged(name, error, f"row {index}") from error
    return read.reshape(files.shape)


def _what_came(data: bytes) -> str:
    return f"{len(data)} bytes that start with {data[:8].hex(' ')}" if data else "an empty file"


def _size_of(data: bytes) -> tuple[int, int] | None:
    """(width, height) by an image's header, None for what is no image."""
    kind = format_of(data)
    if kind is None:
        return None
    if kind == "WebP":
        header = webp_header(data)
        return (header.width, header.height) if header else None
    try:
        with Image.open(io.BytesIO(data[:_HEADER_BYTES]), formats=(kind,)) as image:
            return image.size
    except Exception:  # whatever a plug-in of Pillow's raises for its format
        return None


def _image_signature(
    signatures: Signatures, options: ImageOptions, takes_files: bool = True
) -> Signature:
    """The signature asked for, else `encoded`, else the default; one of its inputs takes images,
    where that is asked."""
    name = options.signature_name
    if name is None:
        name = ENCODED_SIGNATURE if ENCODED_SIGNATURE in signatures else DEFAULT_SIGNATURE
    signature = signatures.get(name)
    if takes_files and not any(
        spec.is_string or takes_pixels(spec) for spec in signature.inputs.values()
    ):
        takes = ", ".join(f"{name} ({spec})" for name, spec in signature.inputs.items())
        raise UnsupportedMediaType(f'Signature "{signature.name}" takes no images, but {takes}')
    return signature


def _files(files: Sequence[bytes], spec: TensorSpec, options: ImageOptions) -> Array:
    """[N] strings, or [N, H, W, C] pixels; N files."""
    places = [f"file {index}" if len(files) > 1 else "" for index in range(len(files))]
    if not (spec.is_string or takes_pixels(spec)):
        raise InvalidInput(spec.name, f"{spec} as a text field of JSON", "a file")
    for data, at in zip(files, places, strict=True):
        check_image(data, spec.name, at, options.max_pixels)
    if spec.is_string:
        strings = np.empty(len(files), object)
        strings[:] = files
        return strings
    return _stacked(
        [
            decode_pixels(data, spec, options.resize, at)
            for data, at in zip(files, places, strict=True)
        ],
        spec,
    )


def _stacked(images: list[Array], spec: TensorSpec) -> Array:
    """[N, H, W, C]; where the model leaves H and W open, the files must agree."""
    for index, image in enumerate(images):
        if image.shape != images[0].shape:
            raise InvalidInput(
                spec.name,
                f"{list(images[0].shape)}, as file 0",
                str(list(image.shape)),
                f"file {index}",
            )
    return np.stack(images)


def _texts(texts: Sequence[str], spec: TensorSpec, signature: Signature) -> Array:
    """[N, ...]: each text is one row."""
    if spec.is_string and signature.name in TAKE_FILES:
        raise InvalidInput(spec.name, "an image file", "a text field", hint="curl: -F name=@file")
    if spec.is_string:
        return array_of(list(texts), spec, "")
    rows = [parse_json(text.encode(), f"The form field {spec.name}") for text in texts]
    return array_of(rows, spec, "")


def resize_option(name: str) -> str:
    """`name`, if it is a way to resize. Raises MalformedRequest."""
    if name not in RESIZES:
        raise MalformedRequest(f'?resize="{shown(name)}" is not known{did_you_mean(name, RESIZES)}')
    return name
