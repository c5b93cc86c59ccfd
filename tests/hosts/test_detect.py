"""Which processes a command is one of."""

import pytest

from flowjax.errors import FlowjaxError
from flowjax.hosts.detect import Processes, processes, whole_node

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-4]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}


def test_one_process_by_itself():
    assert processes(None, None, None) is None
    assert processes(None, 1, None) is None


def test_processes_that_the_flags_name():
    assert processes("10.0.0.1:1234", 4, 3) == Processes("10.0.0.1:1234", 4, 3)


def test_a_cluster_that_jax_knows(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert processes(None, None, None) == Processes()
    assert processes("node1:99", None, None) == Processes("node1:99")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert processes(None, None, None) is None


@pytest.mark.parametrize(
    "given, said",
    [
        (("10.0.0.1:1234", 4, None), "missing --process-id"),
        (("10.0.0.1:1234", None, None), "missing --num-processes, --process-id"),
        ((None, 4, 0), "missing --coordinator"),
        (("10.0.0.1", 4, 0), "--coordinator '10.0.0.1': give the address and port"),
        (("10.0.0.1:1234", 4, 4), "--process-id 4: give 0 to 3"),
    ],
)
def test_what_does_not_say_it(given, said):
    with pytest.raises(FlowjaxError, match=said):
        processes(*given)


@pytest.mark.parametrize(
    "tasks, gpus, devices",
    [
        ("1(x4)", "8", tuple(range(8))),
        ("1", "4", (0, 1, 2, 3)),
        ("8(x4)", "8", None),
        ("", "", None),
    ],
)
def test_one_task_of_slurm_has_all_gpus_of_its_node(tasks, gpus, devices):
    found = whole_node({"SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_GPUS_ON_NODE": gpus})
    assert found == devices
