"""What a package holds, found by looking: whoever adds a module adds it to no list."""

import importlib
import pkgutil
from types import ModuleType


def submodules(package: ModuleType) -> dict[str, ModuleType]:
    """The modules right inside a package, by name, imported."""
    return {
        info.name: importlib.import_module(f"{package.__name__}.{info.name}")
        for info in pkgutil.iter_modules(package.__path__)
    }
