"""Which processes a command is one of: as its user says, or as the cluster does."""

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from jax._src.clusters import ClusterEnv

from flowjax.errors import FlowjaxError

ALONE = "--num-processes 1 runs this command by itself"


@dataclass(frozen=True)
class Processes:
    """What `jax.distributed.initialize` is told; what is None, it finds out.

    coordinator: address and port of process 0.
    devices: which of this host's are this process's; None for JAX's choice.
    """

    coordinator: str | None = None
    count: int | None = None
    process: int | None = None
    devices: tuple[int, ...] | None = None


def processes(coordinator: str | None, count: int | None, process: int | None) -> Processes | None:
    """The processes that were started together, as the flags say or else the cluster.

    Returns:
        None for one process by itself.

    Raises:
        FlowjaxError: some of what must be said is missing, or the cluster cannot be read.
    """
    given = {"--coordinator": coordinator, "--num-processes": count, "--process-id": process}
    missing = [name for name, value in given.items() if value is None]
    if count == 1:
        return None
    if not missing:
        assert coordinator is not None and count is not None and process is not None
        if not re.fullmatch(r"\S+:\d+", coordinator):
            raise FlowjaxError(f"--coordinator {coordinator!r}: give the address and port of it")
        if not 0 <= process < count:
            raise FlowjaxError(f"--process-id {process}: give 0 to {count - 1}")
        return Processes(coordinator, count, process)
    try:
        found = _cluster()
        alone = found is not None and found.get_process_count() == 1
    except Exception as error:  # whatever a cluster's own library raises
        raise FlowjaxError(f"the cluster cannot be read: {error}; {ALONE}") from error
    if len(missing) < len(given) and (found is None or process is not None or count is not None):
        raise FlowjaxError(
            f"missing {', '.join(missing)}: give all of {', '.join(given)}, or on a cluster that "
            "JAX knows at most --coordinator"
        )
    return (
        None if found is None or alone else Processes(coordinator, devices=whole_node(os.environ))
    )


def _cluster() -> type[ClusterEnv] | None:
    """The kind of cluster that `jax.distributed.initialize` will find."""
    with warnings.catch_warnings():
        # One pod of Kubernetes by itself, such as a notebook's, needs no library for it.
        warnings.filterwarnings("ignore", "Kubernetes environment detected")
        warnings.filterwarnings("ignore", r"\nKubernetes environment detected")
        kinds = (kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method)
        return next((kind for kind in kinds if kind.is_env_present()), None)


def whole_node(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """All GPUs of a node that SLURM starts one task on; None to leave it to JAX.

    JAX gives a task of SLURM one GPU, as if there were a task for each.
    """
    tasks = environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    gpus = environ.get("SLURM_GPUS_ON_NODE", "")
    if re.fullmatch(r"1(\(x\d+\))?(,1(\(x\d+\))?)*", tasks) and gpus.isdecimal():
        return tuple(range(int(gpus)))
    return None
