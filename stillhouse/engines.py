"""The engines that are open, by their teachers: one start serves all stages that use a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from core.recipe import LoadedRecipe
from core.recipe_teachers import AnyTeacher
from core.teacher import Engine


class Engines:
    """Engines of one recipe, or of several that are run one after the other."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[AnyTeacher, Engine]] = {}

    def __iter__(self) -> Iterator[tuple[str, AnyTeacher, Engine]]:
        """Those that are open: the teacher's name, what the recipe says of it, the engine."""
        for name, (section, engine) in list(self._open.items()):
            yield name, section, engine

    def get(self, name: str, loaded: LoadedRecipe, logs: Path) -> Engine:
        """The engine of a recipe's teacher, started where it is not open."""
        from pipelines.teachers import open_teacher

        section = loaded.recipe.teachers[name]
        if name in self._open and self._open[name][0] != section:
            self.close(name)  # another recipe's teacher of that name
        if name not in self._open:
            self._open[name] = (section, open_teacher(name, loaded, logs))
        return self._open[name][1]

    def close(self, name: str) -> None:
        """Give back what one teacher holds."""
        self._open.pop(name)[1].close()

    def close_all_but(self, needed: Mapping[str, AnyTeacher]) -> None:
        """Give back what no later stage uses: an idle engine holds its devices."""
        for name, section, _ in self:
            if needed.get(name) != section:
                self.close(name)
