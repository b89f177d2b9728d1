"""Image files on disk -> arrays, and which of them are held out."""

import csv
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from sluice.pictures.decoding import Unreadable
from sluice.wire.tensors import Array
from training.data.sources.picture import Shape, read_picture
from training.data.sources.tree import shown
from training.errors import DataError
from training.surroundings.disk import allocate
from training.workspace import SKIPPED, SPLIT, images_folder

HELD_OUT = ("test", "validation")  # parts, in the order in which they are filled
_PARTS = ("train", "validation", "test")
_SHARE = 0.15  # of every class, for validation and for test each
_LISTED = 10  # unreadable files named on the screen; the file names all


@dataclass(frozen=True)
class Example:
    """files: by input name; all must be readable for the example to count.

    part: where its owner has put it; None where that is for us to choose.
    """

    key: str  # what it is remembered by, wherever the data lies
    files: Mapping[str, Path]
    stratum: str  # what is split in proportion: the class
    part: str | None = None


def read_parts(
    examples: Sequence[Example], shape: Shape, origin: Path, workspace: Path
) -> dict[str, tuple[dict[str, Array], list[Example]]]:
    """By part: uint8 [N, *shape] by input name, and the N examples that they are of.

    Which example is in which part is remembered in the workspace; what cannot be read is left out,
    and named. Raises DataError where nothing of a part can be read; `origin` is for its message.
    """
    print(f"Reading {len(examples):,} images of {shown(origin)}", flush=True)
    parts: dict[str, tuple[dict[str, Array], list[Example]]] = {}
    skipped: dict[Path, str] = {}
    for part, members in _remembered_split(examples, workspace).items():
        if not members:
            raise DataError(f"{shown(origin)} has no image for {part}: expected one at least")
        images, rows, unread = _read(members, shape, workspace)
        parts[part] = images, [members[row] for row in rows]
        skipped |= unread
    _report_skipped(skipped, workspace)
    for part, (_, kept) in parts.items():
        if not kept:
            raise DataError(
                f"none of the images that {part} takes from {shown(origin)} can be read; the "
                f"first: {next(iter(skipped.values()))}"
            )
    return parts


def _read(
    examples: Sequence[Example], shape: Shape, workspace: Path
) -> tuple[dict[str, Array], list[int], dict[Path, str]]:
    """uint8 [N, H, W, C] by input name, the rows of `examples` they are of, and why the files of
    the others could not be read.

    The pixels lie in files of the workspace and not in memory, since a folder of photographs may
    have more of them than the machine has.
    """
    names, folder = list(examples[0].files), images_folder(workspace)
    arrays = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", np.uint8, (len(examples), *shape)
        )
        for name in names
    }
    for name in names:
        allocate(f"the pixels of {len(examples):,} images", folder / f"{name}.npy")
    readable: list[int] = []
    unread: dict[Path, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(
            lambda example: [_decode(path, shape) for path in example.files.values()], examples
        )
        for row, images in enumerate(decoded):
            reasons = {
                path: str(image)
                for path, image in zip(examples[row].files.values(), images, strict=True)
                if isinstance(image, Unreadable)
            }
            unread |= reasons
            if not reasons:
                for name, image in zip(names, images, strict=True):
                    arrays[name][len(readable)] = image
                readable.append(row)
    return (
        {name: array[: len(readable)] for name, array in arrays.items()},
        readable,
        unread,
    )


def _decode(path: Path, shape: Shape) -> Array | Unreadable:
    try:
        return read_picture(path, shape)
    except Unreadable as error:
        return error


def _report_skipped(skipped: Mapping[Path, str], workspace: Path) -> None:
    """Name the files that could not be read, in `skipped.txt`, and on the screen with reasons."""
    if not skipped:
        return
    listed = "".join(f"{shown(path)}\n" for path in skipped)
    (workspace / SKIPPED).write_text(listed, encoding="utf-8")
    files = "1 file" if len(skipped) == 1 else f"{len(skipped)} files"
    print(f"Skipped {files} that cannot be read:")
    for path, reason in islice(skipped.items(), _LISTED):
        print(f"  {shown(path)}: {reason}")
    if len(skipped) > _LISTED:
        print(f"  … all are in {workspace / SKIPPED}")


def _remembered_split(examples: Sequence[Example], workspace: Path) -> dict[str, list[Example]]:
    """By part. An example stays in the part where an earlier run put it, so that what was held out
    once is never trained on; new ones fill the parts up, in proportion within each stratum.
    """
    memory = workspace / SPLIT
    given = {example.key: example.part for example in examples if example.part}
    known = dict(_read_split(memory)) | given
    to_fill = [part for part in HELD_OUT if part not in given.values()]
    parts: dict[str, list[Example]] = {part: [] for part in _PARTS}
    for group in _by_stratum(example for example in examples if not example.part).values():
        _assign(group, known, to_fill)
    for example in examples:
        parts[known[example.key]].append(example)
    _write_split(memory, ((example.key, known[example.key]) for example in examples))
    return parts


def _by_stratum(examples: Iterable[Example]) -> dict[str, list[Example]]:
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.stratum, []).append(example)
    return groups


def _assign(group: Sequence[Example], known: dict[str, str], to_fill: Sequence[str]) -> None:
    """Put the new ones of one stratum into `known`, in the order of a hash of their path."""
    wanted = max(1, round(_SHARE * len(group)))
    fresh = sorted(
        (example.key for example in group if example.key not in known),
        key=lambda key: hashlib.blake2b(os.fsencode(key)).digest(),
    )
    for part in to_fill:
        held = sum(known.get(example.key) == part for example in group)
        taken, fresh = fresh[: max(0, wanted - held)], fresh[max(0, wanted - held) :]
        known.update(dict.fromkeys(taken, part))
    known.update(dict.fromkeys(fresh, "train"))


def _read_split(memory: Path) -> Iterator[tuple[str, str]]:
    if memory.exists():
        with memory.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            yield from ((row["example"], row["part"]) for row in csv.DictReader(file))


def _write_split(memory: Path, rows: Iterable[tuple[str, str]]) -> None:
    with tempfile.NamedTemporaryFile(
        "w",
        newline="",
        encoding="utf-8",
        errors="surrogateescape",  # a path is bytes, and need not be UTF-8
        dir=memory.parent,
        delete=False,
    ) as file:
        writer = csv.writer(file)
        writer.writerow(("example", "part"))
        writer.writerows(rows)
    Path(file.name).rename(memory)
