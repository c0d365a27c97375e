"""Processes that die by kill -9 at the worst moments, one after another; started by test_deaths.py, which looks at what they leave.

Each dies in a fork of this one, so that torch is imported once.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.train.toys import Toy, Waves, recipe
from tsfm_lib import checkpoints, paths
from tsfm_lib.data import fetching
from tsfm_lib.data.sets import Card
from tsfm_lib.synth.mixture import Mixture, make_pool
from tsfm_lib.train import fit, loop, state

POOL = {"mixture": Mixture.only(walks=1, arma=1), "n": 600, "length": 64, "progress": False}
DLINEAR = {"context": 32, "horizon": 8}


def die(*_, **__) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def from_then_on(times: int, function: Callable, last: Callable) -> Callable:
    """The function, and another one in its place after so many calls."""
    calls = []
    return lambda *given, **named: (calls.append(1), (function if len(calls) <= times else last)(*given, **named))[1]


def half(write: Callable) -> Callable:
    """Write half of a file, and die."""

    def written(what, path, **named):
        write(what, path, **named)
        os.truncate(path, os.path.getsize(path) // 2)
        die()

    return written


def train(folder: Path) -> None:
    fit(Toy(), Waves(), recipe(), folder=folder, progress=False)


def in_the_middle_of_a_checkpoint(folder: Path) -> None:
    state.save_file = from_then_on(2, state.save_file, half(state.save_file))
    train(folder)


def before_a_checkpoint_takes_its_place(folder: Path) -> None:
    state.os.fsync = from_then_on(2, os.fsync, die)
    train(folder)


def between_the_weights_and_the_card(folder: Path) -> None:
    loop.replace_text = die
    train(folder)


def while_a_model_takes_the_place_of_another(folder: Path) -> None:
    for seed in (0, 1):
        checkpoints.save(checkpoints.build("dlinear", DLINEAR, seed), folder)
        Path.rename = from_then_on(1, Path.rename, die)


def in_the_middle_of_a_pool(folder: Path) -> None:
    def cut(file, x):
        file.write(b"half an array")
        file.flush()
        die()

    np.save = from_then_on(1, np.save, cut)
    make_pool(**POOL, folder=folder)


def in_the_middle_of_a_download(folder: Path) -> None:
    def look():
        while not any(part.stat().st_size for part in folder.rglob("*.part*")):
            time.sleep(0.01)
        die()

    os.environ["TSFM_CACHE"] = str(folder)
    threading.Thread(target=look, daemon=True).start()
    fetching.fetch(card())


def before_recorded_rows_take_their_place(folder: Path) -> None:
    folder.mkdir()
    paths.replace_text(folder / "rows.csv", "old")
    paths.os.replace = die
    paths.replace_text(folder / "rows.csv", "new")


def card() -> Card:
    return Card("own", source="web", url=f"{os.environ['TEST_SERVER']}/own.csv", splits="7:1:2")


MOMENTS = {
    act.__name__: act
    for act in (
        in_the_middle_of_a_checkpoint,
        before_a_checkpoint_takes_its_place,
        between_the_weights_and_the_card,
        while_a_model_takes_the_place_of_another,
        in_the_middle_of_a_pool,
        in_the_middle_of_a_download,
        before_recorded_rows_take_their_place,
    )
}


def main(place: str) -> None:
    torch.set_num_threads(1)  # a fork of a process with more threads could wait for them for ever
    for name, act in MOMENTS.items():
        if (child := os.fork()) == 0:
            try:
                act(Path(place) / name)
            finally:
                os._exit(7)  # it should not have come so far
        print(name, os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
