"""Compressed files, unpacked in memory and within bounds: nothing is ever written, and no name inside an archive is used as a path."""

import gzip
import io
import math
import stat
import zipfile
from pathlib import PurePosixPath

import numpy as np

from tsfm_lib.errors import TsfmError

Members = list[tuple[str, bytes]]
LIMIT = 2 * 2**30  # bytes a file may unpack to; the largest of the catalogue comes to about 1.2e9
_PIECE = 2**20


def unpack(name: str, data: bytes, endings: tuple[str, ...]) -> Members:
    """The files with these endings inside a gzip or zip file, else the file itself. Refuses what would unpack to more than LIMIT."""
    zipped = data[:2] == b"PK"
    if not zipped and data[:2] != b"\x1f\x8b":
        return [(name, data)]
    try:
        return _zip(name, data, endings) if zipped else [(name.removesuffix(".gz"), _gunzip(name, data))]
    except TsfmError:
        raise
    except Exception as error:  # zlib, zipfile and gzip raise a dozen kinds; all mean that the bytes are not what they should be
        raise TsfmError(f"{name} is cut short or damaged ({_line(error)}): get the file again") from None


def _gunzip(name: str, data: bytes) -> bytes:
    pieces, size = [], 0
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        while piece := file.read(_PIECE):  # what a gzip file says of its own size need not be true
            size += len(piece)
            _bounded(name, size)
            pieces.append(piece)
    return b"".join(pieces)


def _zip(name: str, data: bytes, endings: tuple[str, ...]) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for inside in archive.infolist():
            path = PurePosixPath(inside.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or stat.S_ISLNK(inside.external_attr >> 16):
                raise TsfmError(f"{name} holds {inside.filename!r}, a link or a path that leads out of it: pack plain files and folders")
            if inside.flag_bits & 1:
                raise TsfmError(f"{name} holds {inside.filename!r}, which needs a password: pack it without one")
        _bounded(name, sum(inside.file_size for inside in archive.infolist()))
        wanted = [n for n in archive.namelist() if n.lower().endswith(endings) and not PurePosixPath(n).name.startswith((".", "_"))]
        return [(n, _declared(archive, n)) for n in wanted]


def _declared(archive: zipfile.ZipFile, name: str) -> bytes:
    """As many bytes as the directory declares; `read()` without a number would unpack whatever is there and compare afterwards."""
    with archive.open(name) as file:
        return file.read(archive.getinfo(name).file_size)


def array(data: bytes) -> np.ndarray:
    """The array of an .npy file. Refused: objects, which only pickle could read, and a header that declares more than the file holds."""
    form = np.lib.format
    try:
        file = io.BytesIO(data)
        version = form.read_magic(file)
        shape, fortran, kind = (form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0)(file)
        declared, there = math.prod(shape) * kind.itemsize, len(data) - file.tell()
        if kind.hasobject or min(shape, default=0) < 0 or declared > there:
            raise ValueError("it holds objects" if kind.hasobject else f"its header declares {shape} of {kind}, the file has {there} bytes")
        flat = np.frombuffer(data, kind, math.prod(shape), file.tell())
        return flat.reshape(shape, order="F" if fortran else "C").copy()
    except Exception as error:  # numpy reads the header as Python: anything may come of a damaged one
        raise TsfmError(f"no plain array of numbers ({_line(error)})") from None


def _bounded(name: str, size: int) -> None:
    if size > LIMIT:
        raise TsfmError(f"{name} unpacks to more than {LIMIT / 2**30:.3g} GiB, the most that is read: split it, or save arrays as npy")


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
