"""Devices that are not here, as compilers know them."""

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from flowjax.errors import FlowjaxError
from flowjax.mesh import DATA, MODEL, MeshShape
from flowjax.planning.hardware import Slice

GROUP = "group"
"""The axis of a slice's groups of devices, each of which has samples of its own."""

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""What XLA asks of a chip (stream_executor.GpuTargetConfigProto); numbers of an H100 SXM."""
H200 = (
    H100.replace("84942979072", "150754820096")
    .replace("3352320000000", "4800000000000")
    .replace("H100 80GB HBM3", "H200")
)
GPUS = {"h100": H100, "h200": H200}

LIBTPU = {
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""Without these, libtpu looks for a TPU's metadata and takes a lock."""

HOST = 4
"""TPUs of a host, as libtpu describes slices."""

NEEDED = {"tpu": ("libtpu",), "cuda": ("jax_plugins.xla_cuda13", "nvidia")}
EXTRAS = {"tpu": "tpu-compile", "cuda": "cuda-compile"}


@dataclass(frozen=True)
class Target:
    """A slice's devices in groups of one or more copies of a model.

    mesh: axes `group`, `data` (copies in a group) and `model`. Windows are divided over `data`,
        samples over groups (see `flowjax.mesh` and the commands' `--mesh`).
    processes: that a run starts: one on each host of TPUs, one for each GPU.
    """

    slice: Slice
    mesh: Mesh
    processes: int

    @property
    def copies(self) -> int:
        """Of the model, in a group."""
        return self.mesh.shape[DATA]

    @property
    def groups(self) -> int:
        """That have samples of their own."""
        return self.mesh.shape[GROUP]

    @property
    def model(self) -> int:
        """Devices of one copy."""
        return self.mesh.shape[MODEL]

    @property
    def alone(self) -> bool:
        """Whether a group is one device."""
        return self.copies * self.model == 1


def target(where: Slice, shape: MeshShape) -> Target:
    """The devices of a slice under a mesh.

    Raises:
        FlowjaxError: the compiler is not installed, or the mesh does not fit the slice.
    """
    whole = shape.over(where.devices)
    devices = sorted(described(where), key=lambda one: (one.process_index, one.id))
    local = per_process(where, devices)
    copies, rest = divmod(local, whole.model)
    if rest and whole.model % local:
        raise FlowjaxError(
            f"--mesh {whole}: every process has {local} devices; model must divide them or be a "
            "multiple of them"
        )
    grid = np.array(devices).reshape(-1, max(copies, 1), whole.model)
    return Target(where, Mesh(grid, (GROUP, DATA, MODEL)), where.devices // local)


def per_process(where: Slice, devices: list[Any] | None) -> int:
    """Devices of each process of a run: a GPU, or a host's TPUs.

    devices: of the slice; None for as many TPUs as a host has.
    """
    if where.chip.platform == "cuda":
        return 1
    if devices is None:
        return min(HOST, where.devices)
    return len(devices) // len({device.process_index for device in devices})


def described(where: Slice) -> list[Any]:
    """The devices of a slice, which can be compiled for and nothing else.

    Raises:
        FlowjaxError: the compiler is not installed.
    """
    check_compiler(where.chip.platform)
    if where.chip.platform == "cuda":
        found = topologies.get_topology_desc(
            platform="cuda",
            target_config=GPUS[where.chip.name],
            topology=f"1x1x{where.devices}",
        )
    else:
        for name, value in LIBTPU.items():
            os.environ.setdefault(name, value)
        one = where.devices == 1  # libtpu describes hosts, of four chips
        name = f"{where.chip.name}:2x2" if one else str(where)
        found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    return list(found.devices)[: where.devices]


def check_compiler(platform: str) -> None:
    """Refuse where the compiler for a platform is not installed.

    Raises:
        FlowjaxError: names the package, and the extra that brings it.
    """
    for name in NEEDED[platform]:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise FlowjaxError(
                f"{name} is not installed, without which nothing can be compiled for "
                f"{platform}: pip install 'flowjax-videollm[{EXTRAS[platform]}]' "
                "(Linux on x86-64)"
            )
