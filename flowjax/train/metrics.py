"""What a run says of itself: lines on the console and in a file."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from flowjax.errors import FlowjaxError

LOG = logging.getLogger(__name__)

FILE = "log.jsonl"


class Metrics:
    """The log of a run in a folder; of several processes, the first one's alone writes.

    FOLDER/log.jsonl    one line each time: the step and the metrics
    """

    def __init__(self, folder: Path, done: int) -> None:
        """A run that was killed after its last checkpoint has logged steps that come again.

        Args:
            folder: of the run.
            done: steps that its last checkpoint has; what was logged of later ones is dropped.
        """
        self._path = folder / FILE
        self._writes = jax.process_index() == 0
        if self._writes:
            _drop_lines_after(self._path, done)

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
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        LOG.info("%s", line)


def _drop_lines_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    path.write_text("".join(kept), encoding="utf-8")
