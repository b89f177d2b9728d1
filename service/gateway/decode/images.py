"""Image files, raw or as fields of a form, to a query.

A signature that takes strings (`encoded`, docs/contract.md) gets the files as they are: the pixels
are then decoded in the model's graph, and what is fed to the network is what training fed to it.
Only their headers are read here. For a model without one they are decoded and resized here.
"""

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from service.gateway.decode.pixels import RESIZES, decode_pixels, takes_pixels
from service.gateway.decode.values import array_of
from service.gateway.errors import (
    InputTooLarge,
    InvalidInput,
    MalformedRequest,
    UnknownInput,
    UnsupportedMediaType,
    did_you_mean,
)
from service.gateway.query import Query, TfsQuery
from service.gateway.signature import DEFAULT_SIGNATURE, Signature, Signatures, TensorSpec
from sluice.wire.tensors import Array

AnyQuery = TypeVar("AnyQuery", bound=Query)
ENCODED_SIGNATURE = "encoded"
FORMATS = ("JPEG", "PNG", "GIF", "BMP")  # what the graph's decoder reads


class ImageOptions(NamedTuple):
    """How a client wants its files read."""

    max_pixels: int
    signature_name: str | None = None  # `encoded`, or the default where there is none
    resize: str = "stretch"


def decode_image(body: bytes, signatures: Signatures, options: ImageOptions) -> TfsQuery:
    """One image file as the body: a batch of one for the only input."""
    signature = _image_signature(signatures, options)
    if len(signature.inputs) != 1:
        raise UnknownInput(
            f'Signature "{signature.name}" has the inputs '
            f"{', '.join(signature.inputs)}; send multipart/form-data "
            "with one field for each"
        )
    ((name, spec),) = signature.inputs.items()
    return TfsQuery(signature, {name: _files([body], spec, options)})


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
    signature = _image_signature(signatures, options)
    if not files and not texts:
        raise MalformedRequest(
            f"The form has no fields; expected one for each of {', '.join(signature.inputs)}"
        )
    for name in [*files, *texts]:
        if name not in signature.inputs:
            raise UnknownInput(
                f'Signature "{signature.name}" has no input "{name}"'
                f"{did_you_mean(name, signature.inputs)}"
            )
    inputs = {name: _files(files[name], signature.inputs[name], options) for name in files}
    inputs |= {name: _texts(texts[name], signature.inputs[name], signature) for name in texts}
    return TfsQuery(signature, inputs)


def check_images(query: AnyQuery, max_pixels: int) -> AnyQuery:
    """`query`, whose strings for the signature `encoded` are images; InvalidInput if they are not.

    A picture of 30,000 x 30,000 pixels is a few kilobytes of PNG, and 2.7 GB in the model server.
    """
    if query.signature.name == ENCODED_SIGNATURE:
        for name, array in query.inputs.items():
            # Numbers and unknown names are refused with the signature's other rules.
            if name in query.signature.inputs and array.dtype.kind == "O":
                for index, data in enumerate(array.ravel()):
                    check_image(data, name, f"row {index}", max_pixels)
    return query


def check_image(data: bytes, name: str, at: str, max_pixels: int) -> None:
    """Raises InvalidInput for no image, InputTooLarge for one of more than `max_pixels` pixels."""
    try:
        with warnings.catch_warnings():  # Pillow's own limit warns; ours raises
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise InputTooLarge(
            name, f"an image of at most {max_pixels} pixels", str(error), at
        ) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        start = " ".join(f"{byte:02x}" for byte in data[:8]) or "nothing"
        raise InvalidInput(
            name,
            f"an image ({', '.join(FORMATS)})",
            f"{len(data)} bytes that are none, starting {start}",
            at,
        ) from None
    if width * height > max_pixels:
        raise InputTooLarge(
            name,
            f"an image of at most {max_pixels} pixels",
            f"{width} x {height} = {width * height}",
            at,
            "SLUICE_MAX_IMAGE_PIXELS; scale it down",
        )


def _image_signature(signatures: Signatures, options: ImageOptions) -> Signature:
    """The signature asked for, else `encoded`, else the default; one of its inputs takes images."""
    name = options.signature_name
    if name is None:
        name = ENCODED_SIGNATURE if ENCODED_SIGNATURE in signatures else DEFAULT_SIGNATURE
    signature = signatures.get(name)
    if not any(spec.is_string or takes_pixels(spec) for spec in signature.inputs.values()):
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
    if spec.is_string and signature.name == ENCODED_SIGNATURE:
        raise InvalidInput(spec.name, "an image file", "a text field", hint="curl: -F name=@file")
    if spec.is_string:
        return array_of(list(texts), spec, "")
    try:
        rows = [json.loads(text) for text in texts]
    except ValueError as error:
        raise MalformedRequest(f"The form field {spec.name} is not JSON: {error}") from None
    return array_of(rows, spec, "")


def resize_option(name: str) -> str:
    """`name`, if it is a way to resize. Raises MalformedRequest."""
    if name not in RESIZES:
        raise MalformedRequest(f'?resize="{name}" is not known{did_you_mean(name, RESIZES)}')
    return name


def check_content(query, max_pixels):  # SHIM
    check_images(query, max_pixels)


def check_examples(examples, max_pixels):  # SHIM
    pass
