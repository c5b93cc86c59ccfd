"""What a run says of itself: lines on the console and in a file."""

import importlib
import importlib.util
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from flowjax.errors import FlowjaxError
from flowjax.files import send
from flowjax.paths import is_remote

LOG = logging.getLogger(__name__)

FILE = "log.jsonl"
TENSORBOARD = "tensorboardX"


class Metrics:
    """The log of a run in a folder; of several processes, the first one's alone writes.

    FOLDER/log.jsonl    one line each time: the step and the metrics
    FOLDER/events.*     the same for TensorBoard, if asked for
    """

    def __init__(self, folder: Path, done: int, *, tensorboard: bool = False) -> None:
        """A run that was killed after its last checkpoint has logged steps that come again.

        Args:
            folder: of the run.
            done: steps that its last checkpoint has; what was logged of later ones is dropped.
            tensorboard: write event files as well.

        Raises:
            FlowjaxError: event files are asked for and cannot be written.
        """
        self._path = folder / FILE
        self._lines: list[str] = []
        self._writes = jax.process_index() == 0
        self._events = None
        if tensorboard:
            check_tensorboard(folder)
        if self._writes:
            self._lines = _lines_until(self._path, done)
            self._rewrite()
            if tensorboard:
                writer = importlib.import_module(TENSORBOARD).SummaryWriter
                self._events = writer(str(folder), purge_step=done + 1)

    def write(self, step: int, metrics: Mapping[str, np.ndarray | float]) -> None:
        """Log what was measured after some steps.

        Raises:
            FlowjaxError: there is a loss and it is not finite; of runs side by side, none is.
        """
        found = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
        values = {name: np.round(value, 6).tolist() for name, value in found.items()}
        if "loss" in found and not np.isfinite(found["loss"]).any():
            raise FlowjaxError(
                f"the loss is {values['loss']} at step {step}; lower the learning rate"
            )
        if not self._writes:
            return
        line = json.dumps({"step": step} | values)
        self._lines.append(line + "\n")
        if is_remote(self._path):
            self._rewrite()
        else:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        LOG.info("%s", line)
        if self._events is not None:
            for name, value in found.items():
                self._events.add_scalar(name, float(value.mean()), step)

    def _rewrite(self) -> None:
        """Objects of a store are written whole."""
        content = "".join(self._lines).encode()
        if is_remote(self._path):
            send(content, self._path)
        elif self._path.exists():
            self._path.write_bytes(content)

    def close(self) -> None:
        """Bring event files to the disk."""
        if self._events is not None:
            self._events.close()


def check_tensorboard(folder: Path) -> None:
    """Refuse event files where nothing can write them.

    Raises:
        FlowjaxError: says what to install, or where they can go.
    """
    if is_remote(folder):
        raise FlowjaxError(
            f"tensorboard: event files grow, and objects at {folder} cannot; leave it out, or give "
            "an out on this machine"
        )
    if importlib.util.find_spec(TENSORBOARD) is None:
        raise FlowjaxError(
            "tensorboard: event files need tensorboardX; install flowjax-videollm[tensorboard]"
        )


def _lines_until(path: Path, step: int) -> list[str]:
    """What is logged of the first so many steps."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
