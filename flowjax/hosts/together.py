"""What the processes of a run tell each other, by the key-value store of `jax.distributed`.

Every process makes the same calls in the same order.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any

import orbax.checkpoint as ocp
from jax._src.distributed import global_state  # which starts no backend to tell

LONG = 7 * 24 * 3600 * 1000
"""Milliseconds that one waits for others, who may have more to do; if one fails, JAX ends all."""

_calls = itertools.count()


def process() -> int:
    """Which of the processes this is, from 0."""
    return global_state.process_id


def processes() -> int:
    """How many there are."""
    return global_state.num_processes


def share(value: Callable[[], Any]) -> Any:  # noqa: ANN401 - any JSON value
    """What process 0 makes, on every process; the others wait for it."""
    client, key = ocp.multihost.get_jax_distributed_client(), key_for("share")
    if process() == 0:
        client.key_value_set(key, json.dumps(value()))
    return json.loads(client.blocking_key_value_get(key, LONG))


def gather(value: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
    """What every process gives, in their order; on process 0 alone, the others get nothing."""
    client, key = ocp.multihost.get_jax_distributed_client(), key_for("gather")
    client.key_value_set(f"{key}/{process()}", json.dumps(value))
    if process() != 0:
        return []
    every = range(processes())
    return [json.loads(client.blocking_key_value_get(f"{key}/{one}", LONG)) for one in every]


def count(key: str, more: int) -> int:
    """Add to a number that all processes share, 0 at first; what it is then."""
    return ocp.multihost.get_jax_distributed_client().key_value_increment(key, more)


def wait_for_all() -> None:
    """Go on when every process is here."""
    ocp.multihost.get_barrier_sync_fn()(key=key_for("all"), timeout_ms=LONG)


def key_for(kind: str) -> str:
    """A name for one call, the same on every process."""
    return f"flowjax/{kind}/{next(_calls)}"
