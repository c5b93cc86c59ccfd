"""Joining the other processes of a run, and ending with them.

JAX's coordination service sees a process that ends or stops answering, and then ends all others;
`flowjax.hosts.supervise` turns that into a sentence. A process that fails with an error says so to
the others through the same service, which is quicker and gives the reason.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import jax
import orbax.checkpoint as ocp

from flowjax.errors import FlowjaxError
from flowjax.hosts.detect import Processes
from flowjax.hosts.supervise import NAMES, sentence
from flowjax.hosts.together import LONG, process, processes, wait_for_all
from flowjax.platforms import check_backend

HEARTBEAT = 30
"""Seconds without a sign of life after which a process counts as ended."""

STARTED = 300
"""Seconds in which all processes must have started."""

HEARD = 2.0
"""Seconds that process 0, which holds the service, stays so that the others hear why it ends."""

NAME, FAILED = "flowjax/host", "flowjax/failed"
NOBODY = "null"
"""What is said in the place of a failure when all are done."""

PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def joined(started: Processes | None) -> Iterator[None]:
    """Be one of the processes that were started together, until all are done.

    started: None for one process by itself, which does nothing.

    Raises:
        FlowjaxError: they do not come together; and whatever the block raises, after the others
            have been told.
    """
    if started is None:
        yield
        return
    if sys.platform == "linux":  # whoever ends the supervisor ends this process
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # It would catch SIGTERM and wait for a step of training; what is finished is stored already.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            started.coordinator,
            started.count,
            started.process,
            started.devices,
            initialization_timeout=STARTED,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except (RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FlowjaxError(
            f"the processes of the run did not come together in {STARTED} s: {reason}"
        ) from error
    check_backend()
    names = _names()
    listening = threading.Thread(target=_listen, daemon=True)
    listening.start()
    try:
        yield
        wait_for_all()
        if process() == 0:
            ocp.multihost.get_jax_distributed_client().key_value_set(FAILED, NOBODY)
        listening.join()
    except BaseException as error:
        _tell(names, error)
        raise


def leave(error: BaseException) -> None:
    """End a process that fails among others, whom JAX would have it wait for."""
    code = error.code if isinstance(error, SystemExit) else 1
    if processes() == 1 or not code:
        return
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    if process() == 0:
        time.sleep(HEARD)
    os._exit(code if isinstance(code, int) else 1)


def _names() -> list[str]:
    """The host of every process, which the supervisor is told, too."""
    client = ocp.multihost.get_jax_distributed_client()
    client.key_value_set(f"{NAME}/{process()}", socket.gethostname())
    names = [client.blocking_key_value_get(f"{NAME}/{n}", LONG) for n in range(processes())]
    if NAMES in os.environ:
        with os.fdopen(int(os.environ[NAMES]), "w", encoding="utf-8") as file:
            json.dump(names, file)
    return names


def _tell(names: list[str], error: BaseException) -> None:
    reason = " ".join((str(error) or type(error).__name__).split())
    said = sentence([process()], names, f"failed: {reason}")
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was first
        client = ocp.multihost.get_jax_distributed_client()
        client.key_value_set(FAILED, json.dumps({"process": process(), "said": said}))


def _listen() -> None:
    """End this process when another says that it has failed."""
    client = ocp.multihost.get_jax_distributed_client()
    failed = json.loads(client.blocking_key_value_get(FAILED, LONG))
    if failed is not None and failed["process"] != process():
        print(failed["said"], file=sys.stderr, flush=True)
        os._exit(2)
