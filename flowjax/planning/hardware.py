"""Accelerators by name: what they have, and who says so."""

import math
import re
from dataclasses import dataclass

from flowjax.errors import FlowjaxError
from flowjax.kernels.pruned_attention import Implementation

GIB = 1 << 30


@dataclass(frozen=True)
class Chip:
    """One device.

    platform: of JAX, "tpu" or "cuda".
    memory: bytes that programs can have.
    flops: bfloat16 FLOPs per second, of dense products.
    bandwidth: bytes per second of its memory.
    links: bytes per second that it sends and receives, both ways together, over all its links.
    source: of these numbers.
    kernel: the attention kernel of a model that lies on one such device.
    """

    name: str
    platform: str
    memory: int
    flops: float
    bandwidth: float
    links: float
    source: str
    kernel: Implementation

    @property
    def backend(self) -> str:
        """As `jax.default_backend` says it."""
        return "gpu" if self.platform == "cuda" else self.platform


def _tpu(name: str, memory: float, flops: float, bandwidth: float, links: float) -> Chip:
    """Memory in GiB that libtpu allots, TFLOP/s, GB/s, GB/s."""
    return Chip(
        name,
        "tpu",
        int(memory * GIB),
        flops * 1e12,
        bandwidth * 1e9,
        links * 1e9,
        f"cloud.google.com/tpu/docs/{name}; memory: what libtpu's compiler allots of it",
        "mosaic_tpu",
    )


CHIPS = {
    "v5e": _tpu("v5e", 15.75, 197.0, 819.0, 400.0),
    "v5p": _tpu("v5p", 95.74, 459.0, 2765.0, 600.0),
    "v6e": _tpu("v6e", 31.25, 918.0, 1638.0, 800.0),
    "h100": Chip(
        "h100",
        "cuda",
        84_942_979_072,
        989.4e12,
        3.35e12,
        900e9,
        "NVIDIA H100 data sheet, SXM",
        "mosaic_gpu",
    ),
    "h200": Chip(
        "h200",
        "cuda",
        150_754_820_096,
        989.4e12,
        4.8e12,
        900e9,
        "NVIDIA H200 data sheet, SXM",
        "mosaic_gpu",
    ),
}

FORM = "write a TPU slice such as v5e:4x4, v6e:2x4 or v5p:2x2x4, or GPUs such as h100x8 or h200x8"
NODE = 8
"""GPUs of a machine whose links join all of them."""

SLICES = {
    "v5e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v6e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4"),
}
"""Slices that Google rents, the smallest first (cloud.google.com/tpu/docs/v5e, v5p, v6e)."""


@dataclass(frozen=True)
class Slice:
    """Devices that a run is to have.

    shape: of the torus; one number of GPUs.
    """

    chip: Chip
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> "Slice":
        """Read `"v5e:4x4"` or `"h100x8"`.

        Raises:
            FlowjaxError: another form, an unknown chip, or more GPUs than a machine has.
        """
        if match := re.fullmatch(r"(h\d+)x([1-9]\d*)", text):
            shape = (int(match[2]),)
        elif match := re.fullmatch(r"(v\d\w?):([1-9]\d*(?:x[1-9]\d*)+)", text):
            shape = tuple(map(int, match[2].split("x")))
        else:
            raise FlowjaxError(f"--on {text!r}: {FORM}")
        chip = CHIPS.get(match[1])
        if chip is None:
            raise FlowjaxError(f"--on {text!r}: the chips are {', '.join(CHIPS)}")
        if chip.platform == "cuda" and shape[0] > NODE:
            raise FlowjaxError(f"--on {text!r}: at most {NODE} GPUs, which is one machine")
        if chip.platform == "tpu" and match[2] not in SLICES[chip.name]:
            raise FlowjaxError(f"--on {text!r}: {chip.name} has {', '.join(SLICES[chip.name])}")
        return cls(chip, shape)

    @property
    def devices(self) -> int:
        """How many."""
        return math.prod(self.shape)

    def larger(self) -> tuple["Slice", ...]:
        """Slices of the same chip that have more devices, the smallest first."""
        if self.chip.platform == "cuda":
            shapes = [(2**power,) for power in range(NODE.bit_length())]
        else:
            shapes = [tuple(map(int, each.split("x"))) for each in SLICES[self.chip.name]]
        slices = (Slice(self.chip, shape) for shape in shapes)
        return tuple(each for each in slices if each.devices > self.devices)

    def __str__(self) -> str:
        """As `parse` reads it."""
        joined = "x".join(map(str, self.shape))
        return f"{self.chip.name}{'x' if self.chip.platform == 'cuda' else ':'}{joined}"
