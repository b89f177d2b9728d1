"""Image files, raw or as fields of a form, to a Query of a signature that takes encoded images.

Only the header is read here: the pixels are decoded in the model's graph, so what is fed to the
network is what training fed to it.
"""
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

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
from service.gateway.signature import Signature, Signatures, TensorSpec
from service.tensors import Array

AnyQuery = TypeVar("AnyQuery", bound=Query)
ENCODED_SIGNATURE = "encoded"  # docs/contract.md
FORMATS = ("JPEG", "PNG", "GIF", "BMP")  # what the graph's decoder reads


def decode_image(body: bytes, signatures: Signatures, max_pixels: int,
                 signature_name: str | None = None) -> TfsQuery:
    """One image file as the body: a batch of one for the only image input."""
    signature = _image_signature(signatures, signature_name)
    if len(signature.inputs) != 1:
        raise UnknownInput(f'Signature "{signature.name}" has the inputs '
                           f"{', '.join(signature.inputs)}; send multipart/form-data "
                           "with one field for each")
    (name, spec), = signature.inputs.items()
    return TfsQuery(signature, {name: _files([body], spec, max_pixels)})


def decode_form(files: Mapping[str, Sequence[bytes]], texts: Mapping[str, Sequence[str]],
                signatures: Signatures, max_pixels: int,
                signature_name: str | None = None) -> TfsQuery:
    """Form fields named as the inputs; a field that comes several times makes a batch.

    A file is an image for a string input; a text is one row of JSON for any other.
    """
    signature = _image_signature(signatures, signature_name)
    if not files and not texts:
        raise MalformedRequest("The form has no fields; expected one for each of "
                               f"{', '.join(signature.inputs)}")
    for name in [*files, *texts]:
        if name not in signature.inputs:
            raise UnknownInput(f'Signature "{signature.name}" has no input "{name}"'
                               f"{did_you_mean(name, signature.inputs)}")
    inputs = {name: _files(files[name], signature.inputs[name], max_pixels) for name in files}
    inputs |= {name: _texts(texts[name], signature.inputs[name]) for name in texts}
    return TfsQuery(signature, inputs)


def check_images(query: AnyQuery, max_pixels: int) -> AnyQuery:
    """`query`, whose strings for the signature `encoded` are images; InvalidInput if they are not.

    A picture of 30,000 x 30,000 pixels is a few kilobytes of PNG, and 2.7 GB in the model server.
    """
    if query.signature.name == ENCODED_SIGNATURE:
        for name, array in query.inputs.items():
            if query.signature.inputs[name].is_string:
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
        raise InputTooLarge(name, f"an image of at most {max_pixels} pixels", str(error),
                            at) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        start = " ".join(f"{byte:02x}" for byte in data[:8]) or "nothing"
        raise InvalidInput(name, f"an image ({', '.join(FORMATS)})",
                           f"{len(data)} bytes that are none, starting {start}", at) from None
    if width * height > max_pixels:
        raise InputTooLarge(name, f"an image of at most {max_pixels} pixels",
                            f"{width} x {height} = {width * height}", at,
                            "SLUICE_MAX_IMAGE_PIXELS; scale it down")


def _image_signature(signatures: Signatures, name: str | None) -> Signature:
    """The signature asked for, else `encoded`; it must take strings."""
    if name is None and ENCODED_SIGNATURE not in signatures:
        raise UnsupportedMediaType('The model has no signature "encoded" that takes image files; '
                                   "send the pixels as JSON")
    signature = signatures.get(name or ENCODED_SIGNATURE)
    if not any(spec.is_string for spec in signature.inputs.values()):
        raise UnsupportedMediaType(f'Signature "{signature.name}" takes no image files; '
                                   "send the pixels as JSON")
    return signature


def _files(files: Sequence[bytes], spec: TensorSpec, max_pixels: int) -> Array:
    """[N] strings; N files."""
    if not spec.is_string:
        raise InvalidInput(spec.name, f"{spec} as a text field of JSON", "a file")
    for index, data in enumerate(files):
        check_image(data, spec.name, f"file {index}" if len(files) > 1 else "", max_pixels)
    strings = np.empty(len(files), object)
    strings[:] = files
    return strings


def _texts(texts: Sequence[str], spec: TensorSpec) -> Array:
    """[N, ...]: each text is the JSON of one row."""
    if spec.is_string:
        raise InvalidInput(spec.name, "an image file", "a text field", hint="curl: -F name=@file")
    try:
        rows = [json.loads(text) for text in texts]
    except ValueError as error:
        raise MalformedRequest(f"The form field {spec.name} is not JSON: {error}") from None
    return array_of(rows, spec, "")
