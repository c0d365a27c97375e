"""Looking a data set up: $TSFM_DATA, then the user cache, then a download with a checksum.

Nothing half-written stays: a download goes to a temporary name beside its place and is renamed under a lock of the folder.
"""

import fcntl
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tsfm_lib import paths
from tsfm_lib.data.archives import unpack
from tsfm_lib.data.reading import TEXTS, contents
from tsfm_lib.data.sets import Card
from tsfm_lib.errors import DataMissing, TsfmError

TIMEOUT = 20.0  # seconds a server may keep silent
REACH = 1.5  # seconds to find out whether there is a network


def addresses(card: Card) -> list[str]:
    """Where the files of a card are downloaded from; several for M4 (train, test) and the leaderboard (one a model)."""
    return [url.replace("{model}", model) for url in card.url.split() for model in card.facts.get("models", [""])]


def _folder(card: Card) -> Path:
    return paths.cache() / "data" / card.name


def _files(card: Card) -> list[Path]:
    models = card.facts.get("models")
    names = [Path(urlsplit(url).path).name for url in addresses(card)]
    return [_folder(card) / (f"{models[i]}-{name}" if models else name) for i, name in enumerate(names)]


def locate(card: Card) -> list[Path]:
    """The files of a data set that are already here, [] when they are not."""
    given = paths.data_folder()
    if given is not None and card.file:
        wanted = given / card.file
        for path in (wanted, wanted.with_suffix("") if wanted.suffix == ".gz" else wanted, wanted.parent / f"{card.name}.zip"):
            if path.is_file():
                return [path]
    files = _files(card) if card.source == "web" else []
    return files if files and all(f.is_file() for f in files) else []


def _equal(data: bytes, wanted: str) -> bool:
    kind, _, value = wanted.partition(":")
    if kind == "git-blob":
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == value
    return hashlib.new(kind, data).hexdigest() == value


def genuine(path: Path, wanted: str) -> bool:
    """Whether a file, or the one text inside its gzip or zip, has one of the checksums `a | b`."""
    data = contents(path)
    either = wanted.split(" | ")
    if any(_equal(data, w) for w in either):
        return True
    try:
        inside = unpack(path.name, data, TEXTS)
    except TsfmError:
        return False
    return any(_equal(text, w) for _, text in inside[:1] for w in either)


def _pin(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def check(card: Card, path: Path) -> None:
    """Refuse a file that is not the published one; a damaged copy in the cache is removed."""
    ours = _folder(card) in path.parents
    pin = _pin(path)
    if ours:
        wanted = card.checksum or (f"sha256:{pin.read_text().strip()}" if pin.is_file() else "")
    else:
        wanted = " | ".join(w for w in (f"sha256:{card.sha256}" if card.sha256 else "", card.checksum) if w)
    if not wanted or genuine(path, wanted):
        return
    if ours:
        discard(card, [path])
        raise TsfmError(f"{card.name}: {path} does not have the checksum {wanted} and has been removed: load it again to download it anew")
    raise TsfmError(f"{card.name}: {path} does not have the checksum {wanted}: copy it again from {card.url}")


def discard(card: Card, files: list[Path]) -> None:
    """Remove files of the cache (never of $TSFM_DATA) with their pins."""
    for path in files:
        if _folder(card) in path.parents:
            path.unlink(missing_ok=True)
            _pin(path).unlink(missing_ok=True)


def pin(card: Card, files: list[Path]) -> None:
    """Note the checksum of files that were read and found right for the first time; later reads compare with it."""
    for path in files:
        if _folder(card) in path.parents and not card.checksum and not _pin(path).exists():
            with suppress(DataMissing), _writing(card):  # a read-only cache still serves what it holds
                part = _pin(path).with_suffix(f".part{os.getpid()}")
                part.write_text(hashlib.sha256(contents(path)).hexdigest())
                part.replace(_pin(path))


def _place(card: Card) -> str:
    """How to do without a download."""
    return f"put {Path(card.file).name} into the folder {Path(card.file).parent}/ of $TSFM_DATA" if card.file else "see data.card"


def answers(url: str, seconds: float) -> bool:
    """Whether a server, or the proxy in front of it, takes a connection; never later than asked."""
    whole = lambda address: urlsplit(address if "//" in address else f"http://{address}")
    parts = whole(url)
    if not proxy_bypass(parts.hostname or ""):
        parts = whole(getproxies().get(parts.scheme, url))
    answered = threading.Event()

    def knock():
        with suppress(OSError):
            socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), timeout=seconds).close()
            answered.set()

    asking = threading.Thread(target=knock, daemon=True)  # a thread: looking up the name has no time limit of its own
    asking.start()
    asking.join(seconds)
    return answered.is_set()


def reach(card: Card, url: str) -> None:
    """Raise DataMissing within two seconds when there is no network (or it is not to be used)."""
    if os.environ.get("TSFM_OFFLINE", "") not in ("", "0"):
        raise DataMissing(f"{card.name} is not on this machine and TSFM_OFFLINE forbids a download from {url}: unset it, or {_place(card)}")
    if not answers(url, REACH):
        raise DataMissing(f"{card.name} is not on this machine and {url} cannot be reached: connect to a network, or {_place(card)}")


@contextmanager
def _writing(card: Card) -> Iterator[Path]:
    """The cache folder of a card, held by one process at a time; every failure to write is one sentence."""
    folder = _folder(card)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    except OSError as error:
        reason = error.strerror or str(error)
        sentence = f"{card.name} cannot be kept in {folder} ({reason}): free space there or set TSFM_CACHE to another folder"
        raise DataMissing(sentence) from None


def _download(card: Card, url: str, path: Path) -> None:
    from pooch import HTTPDownloader
    from requests import RequestException

    part = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        try:
            HTTPDownloader(progressbar=False, timeout=TIMEOUT, chunk_size=1 << 16)(url, str(part), None)
        except (RequestException, ValueError) as error:
            raise DataMissing(f"{card.name} could not be downloaded from {url} ({error}): try again later, or {_place(card)}") from None
        if card.checksum and not genuine(part, card.checksum):
            raise TsfmError(f"{card.name}: the download from {url} has not the checksum {card.checksum} and was not kept: {_place(card)}")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def fetch(card: Card) -> list[Path]:
    """The files of a card in the cache, downloaded if need be; safe when two processes ask at once."""
    if card.source != "web":
        raise DataMissing(f"{card.name} is no single download (it was made from {card.url}; {card.note}): {_place(card)}")
    files = _files(card)
    if all(f.is_file() for f in files):
        return files
    reach(card, addresses(card)[0])
    with _writing(card) as folder:
        for stale in folder.glob("*.part*"):  # of a process that was killed: whoever writes holds the lock, and that is this one
            stale.unlink()
        for url, path in zip(addresses(card), files):
            if not path.is_file():
                _download(card, url, path)
    return files
