"""The published methods: one module each, with a recipe model and a layout of stages."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from core.recipe import LoadedRecipe, Recipe
from stillhouse.stages import Stage


def method_names() -> list[str]:
    """The methods that there are: the modules of this package."""
    return sorted(module.name for module in iter_modules(__path__))


def _module(method: str) -> ModuleType:
    if method not in method_names():
        raise KeyError(method_names())
    return import_module(f"stillhouse.methods.{method}")


def recipe_model(method: str) -> type[Recipe]:
    """The recipe model of a method.

    Raises:
        KeyError: There is no such method; the argument is the list of those that there are.
    """
    module = _module(method)
    return next(
        found
        for found in vars(module).values()
        if isinstance(found, type)
        and issubclass(found, Recipe)
        and found.__module__ == module.__name__
    )


def lay_out(loaded: LoadedRecipe) -> list[Stage]:
    """The stages of a recipe, each after the ones that it reads."""
    found: list[Stage] = _module(loaded.recipe.method).stages(loaded)
    return found
