"""What `--mesh` says: how many copies of a model there are, and over how many devices each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

from flowjax.errors import FlowjaxError

DATA, MODEL = "data", "model"
"""The axes of a mesh: copies of the model, and the devices that share one."""

FORM = "write data=4,model=2; data is what model leaves where it is not given, and model is 1"


@dataclass(frozen=True)
class MeshShape:
    """Copies of a model, each over some devices.

    data: how many copies; None for as many as the devices allow.
    model: devices of one copy, which is split over them (tensor parallel).
    """

    data: int | None
    model: int = 1

    @classmethod
    def parse(cls, text: str) -> "MeshShape":
        """Read `"data=4,model=2"`, one of them alone, or `"4x2"`.

        Raises:
            FlowjaxError: the text has another form.
        """
        if short := re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text):
            return cls(int(short[1]), int(short[2]))
        sizes: dict[str, int] = {}
        for part in text.split(","):
            match = re.fullmatch(rf"\s*({DATA}|{MODEL})\s*=\s*([1-9]\d{{0,5}})\s*", part)
            if match is None or match[1] in sizes:
                raise FlowjaxError(f"--mesh {text!r}: {FORM}")
            sizes[match[1]] = int(match[2])
        return cls(sizes.get(DATA), sizes.get(MODEL, 1))

    def over(self, devices: int) -> "MeshShape":
        """The same with both sizes, for so many devices.

        Raises:
            FlowjaxError: it has another number of devices.
        """
        data = devices // self.model if self.data is None else self.data
        if data * self.model != devices:
            raise FlowjaxError(
                f"--mesh {self}: there {'is' if devices == 1 else 'are'} {devices} "
                f"device{'' if devices == 1 else 's'}, and data times model must be as many"
            )
        return MeshShape(data, self.model)

    def mesh(self, devices: Sequence[Any]) -> Mesh:
        """These devices with the axes `data` and `model`, neighbours in one copy.

        Raises:
            FlowjaxError: see `over`.
        """
        shape = self.over(len(devices))
        assert shape.data is not None
        return Mesh(np.array(devices).reshape(shape.data, shape.model), (DATA, MODEL))

    def __str__(self) -> str:
        """As `parse` reads it."""
        data = "" if self.data is None else f"{DATA}={self.data},"
        return f"{data}{MODEL}={self.model}"
