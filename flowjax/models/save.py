"""Writing a model like another one: its side files, and other parameters."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from flowjax.files import utf8_name, writing
from flowjax.models.checkpoint import MANIFEST, PARAMETERS, parameters_digest, read_manifest
from flowjax.models.orbax_log import without_expected_warnings
from flowjax.paths import files_under
from flowjax.version import __version__


def save_model(out: Path, base: Path, parameters: Any, *, name: str, note: str) -> None:  # noqa: ANN401 - a tree
    """Write a converted model, which `load_model` reads; a model at `out` is replaced.

    `flowjax.json` comes last: without it nothing takes the folder for a model. Of several
    processes, all must call this, and each writes what its devices hold.

    Args:
        out: the folder.
        base: the converted model whose parameters these were.
        parameters: all of them.
        name: of the model, in results.
        note: a remark that every output repeats.

    Raises:
        FlowjaxError: `out` cannot be written.
    """
    first = jax.process_index() == 0
    with writing(out), utf8_name(out) as named:
        if first:
            named.mkdir(parents=True, exist_ok=True)
            (named / MANIFEST).unlink(missing_ok=True)
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
        with without_expected_warnings(), ocp.Checkpointer(handler) as checkpointer:
            args = ocp.args.PyTreeSave(parameters)
            checkpointer.save(named / PARAMETERS, args=args, force=True)
        if not first:
            return
        for file in files_under(base):
            within = file.relative_to(base)
            if within.parts[0] not in (PARAMETERS, MANIFEST):
                (named / within).parent.mkdir(parents=True, exist_ok=True)
                (named / within).write_bytes(file.read_bytes())
        leaves, _ = jax.tree.flatten_with_path(parameters)
        paths = {"/".join(str(entry.key) for entry in keys): leaf for keys, leaf in leaves}
        manifest = dataclasses.replace(
            read_manifest(base),
            name=name,
            note=note,
            flowjax_version=__version__,
            parameters=sum(leaf.size for leaf in paths.values()),
            dtype={path: str(leaf.dtype) for path, leaf in paths.items()},
            digest=parameters_digest(named / PARAMETERS),
        )
        text = json.dumps(dataclasses.asdict(manifest), indent=2)
        (named / MANIFEST).write_text(text + "\n", encoding="utf-8")
