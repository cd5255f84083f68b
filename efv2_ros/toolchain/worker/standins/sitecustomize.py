"""Stands in for packages that the toolchain imports and does not use for what we ask of it.

Python imports this module as it starts, from PYTHONPATH. It asks for a package here only after all
other places: an installed package is always taken. Any name of a stand-in package is a class that
can be subclassed, annotated with, called as a decorator and compared by `isinstance`; that is all
that the toolchain's modules do with torch and the others while they are imported. Quantising,
compiling and simulating ONNX models call none of it.
"""

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any

STOOD_IN_FOR = {"torch", "torchvision", "paramiko", "matplotlib", "skimage"}


class _Anything(type):
    """A class whose attributes are such classes too."""

    def __getattr__(cls, name: str) -> Any:
        return _attribute(cls, name)


class _Base(metaclass=_Anything):
    """What every name of a stand-in package is."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what the real class takes."""

    def __call__(self, decorated: Any) -> Any:
        """Decorate nothing."""
        return decorated


class _StandIn(types.ModuleType):
    """A module that has every name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__version__ = "1.13.0"  # hmct compares torch's
        self.is_stand_in = True

    def __getattr__(self, name: str) -> Any:
        return _attribute(self, name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of the packages that are not installed."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in STOOD_IN_FOR:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Run nothing."""


def _attribute(owner: Any, name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    value = _Anything(name, (_Base,), {})
    setattr(owner, name, value)
    return value


sys.meta_path.append(_Finder())
