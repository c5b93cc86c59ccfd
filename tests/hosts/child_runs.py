"""Several analyses, one after the other, in one of several processes.

python child_runs.py MODEL DATA OUT MESH NAMES COORDINATOR PROCESSES PROCESS
"""

import sys
from collections.abc import Collection
from pathlib import Path

from flowjax.hosts.detect import Processes
from flowjax.hosts.join import joined
from flowjax.mesh import MeshShape
from flowjax.runs.analysis import Analysis
from flowjax.runs.run import run_part
from flowjax.runs.selection import Selection
from flowjax_experiments.evaluate import Evaluate
from flowjax_experiments.lens import Lens
from flowjax_experiments.pathways.evaluate import Evaluate as EvaluatePathways
from flowjax_experiments.pathways.find import Find
from flowjax_experiments.probability import Probability
from flowjax_experiments.sweep import Sweep


def analyses(out: Path) -> dict[str, Analysis]:
    """What is run, by the folder's name; pathways are found in the sweep."""
    return {
        "sweep": Sweep(edges=("cross-frame", "vql-to-ql"), window=3),
        "lens": Lens(),
        "probability": Probability(),
        "evaluate": Evaluate(),
        "pathways evaluate": EvaluatePathways(form="strict", seeds=1),
        "pathways find": Find(sweep=out / "sweep", threshold=(5.0,), seeds=0),
    }


def run_all(
    model: Path, data: Path, out: Path, mesh: MeshShape | None, names: Collection[str] = ()
) -> None:
    """Run them, or those with these names."""
    for name, analysis in analyses(out).items():
        if names and name not in names:
            continue
        run_part(analysis, model, Selection(data=data, samples="all"), out / name, mesh=mesh)


def main(model: str, data: str, out: str, mesh: str, names: str, *pod: str) -> None:
    coordinator, count, process = pod
    started = Processes(coordinator, int(count), int(process)) if int(count) > 1 else None
    with joined(started):
        shape = MeshShape.parse(mesh)
        run_all(Path(model), Path(data), Path(out), shape, [*filter(None, names.split(","))])


if __name__ == "__main__":
    main(*sys.argv[1:])
