"""Names of a package that are loaded when they are first looked up (PEP 562).

`import simopen` so costs a millisecond, and who only catches its errors or reads its version never pays for the rest;
a program on a lab host needs little of the lab.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # `typing` takes five times as long to load as the rest of `import simopen`
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping


def loader(package: MutableMapping[str, object], homes: Mapping[str, str]) -> Callable[[str], object]:
    """The package's `__getattr__`. `package`: its globals; `homes`: the module that each of its names is from.

    A module is named as seen from the package, or, where it lies elsewhere, in full.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        home = homes[name] if homes[name].startswith("simopen.") else f"{package['__name__']}.{homes[name]}"
        found = package[name] = getattr(import_module(home), name)
        return found

    return load
