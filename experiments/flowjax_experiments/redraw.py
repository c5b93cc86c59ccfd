"""Drawing and printing any finished run again: its manifest says which experiment made it."""

import importlib
import pkgutil
from pathlib import Path

import flowjax_experiments
from flowjax.errors import FlowjaxError
from flowjax.files import read_json


def redraw(run: Path) -> None:
    """Call `report` of the module that made a run, by the setting `experiment` of its manifest.

    A sweep's manifest has no such setting.

    Raises:
        FlowjaxError: the folder is not a run, or no module here has the experiment's name.
    """
    settings = read_json(run / "manifest.json").get("settings")
    name = settings.get("experiment", "information_flow") if isinstance(settings, dict) else None
    # What a manifest says is not trusted with an import.
    modules = [info.name for info in pkgutil.iter_modules(flowjax_experiments.__path__)]
    module = importlib.import_module(f"flowjax_experiments.{name}") if name in modules else None
    report = getattr(module, "report", None)
    if report is None:
        raise FlowjaxError(
            f"{run / 'manifest.json'}: experiment {name!r} is not one whose figures can be drawn"
        )
    report(run)
