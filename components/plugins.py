"""Plug-ins: a user's own Python file whose classifiers, attacks and data sets spaces may then name.

    from components.plugins import classifier

    @classifier("small_resnet")
    def small_resnet(image_shape, classes):  # (C, H, W) and a number
        return SmallResNet(image_shape[0], classes)  # any torch.nn.Module

It is code, trusted by whoever names it on a command line: nothing else ever runs one, and no space can name it.
"""

from __future__ import annotations

import hashlib
import linecache
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from components.attacks import ATTACKS, Attack
from components.classifiers import torchvision_models
from components.classifiers.catalogue import CLASSIFIERS
from components.datasets.catalogue import DATASETS  # with those of the project, whose names are taken
from components.datasets.idx import DataError
from components.datasets.raw import RawData, check_raw
from components.files import expanded, plain
from components.registry import Registry, raised

__all__ = ["Plugin", "PluginError", "attack", "classifier", "dataset", "plugged", "read_plugin"]

Entry = TypeVar("Entry", bound=Callable[..., Any])

_REGISTRIES: tuple[Registry[Any], ...] = (CLASSIFIERS, ATTACKS, DATASETS)


class PluginError(ValueError):
    """A plug-in that cannot be used; the message names the file."""


def attack(name: str) -> Callable[[type[Attack]], type[Attack]]:
    """Decorates a subclass of `components.attacks.Attack`, whose field `name` has this name.

    Raises:
        ValueError: the name is taken, or the class is no such one.
    """
    return ATTACKS.register(name)


def classifier(name: str) -> Callable[[Entry], Entry]:
    """Decorates what makes a network of images: (C, H, W), classes → torch module, perhaps a `Victim`.

    Raises:
        ValueError: the name is taken.
    """
    if name in torchvision_models.names():
        raise ValueError(f"{CLASSIFIERS.key}: expected a new name, found {name!r}, which torchvision defines")
    return CLASSIFIERS.register(name)


def dataset(name: str) -> Callable[[Entry], Entry]:
    """Decorates what reads a data set: the folder of all named ones → `components.datasets.raw.RawData`.

    Raises:
        ValueError: the name is taken.
    """

    def add(read: Entry) -> Entry:
        def checked(data_dir: Path) -> RawData:
            where = f"{DATASETS.key}: {DATASETS.described(name)}"
            return _checked(where, _read(where, read, data_dir))

        DATASETS.register(name)(wraps(read)(checked))
        return read

    return add


def _read(where: str, read: Callable[[Path], object], data_dir: Path) -> object:
    """Calls a plug-in's reader; what it raises becomes an error that names data set and file."""
    try:
        return read(data_dir)
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, DataError) else raised(error)
        raise PluginError(f"{where}: expected RawData(train, test), found {reason}") from error


def _checked(where: str, data: object) -> RawData:
    """A plug-in's data, where both splits are images and labels as `RawSplit` has them."""
    if not isinstance(data, RawData):
        raise PluginError(f"{where}: expected RawData(train, test), found {type(data).__name__}")
    try:
        check_raw(data)
    except DataError as error:
        raise PluginError(f"{where}: {error}") from error
    return data


@dataclass(frozen=True)
class Plugin:
    """A plug-in, wherever its file lies.

    Attributes:
        file: its path, as the user named it.
        content: of the file.
    """

    file: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.content).hexdigest()

    def install(self) -> None:
        """Runs it, once in a process: from then on what it defines has its names.

        Raises:
            PluginError: it raises, redefines a known name, or defines nothing.
        """
        name = f"_plugin_{self.sha256[:16]}"
        if name in sys.modules and any(self.sha256 in registry.sources.values() for registry in _REGISTRIES):
            return
        module = ModuleType(name)
        module.__file__ = self.file
        # the lines that messages and the comments of settings are read from, also where the file itself is not
        lines = self.content.decode().splitlines(keepends=True)
        linecache.cache[self.file] = (len(self.content), None, lines, self.file)
        sys.modules[name] = module
        before = {registry.key: set(registry) for registry in _REGISTRIES}
        undo = [registry.undo() for registry in _REGISTRIES]
        try:
            self._execute(module)
            for registry in _REGISTRIES:
                added = set(registry) - before[registry.key]
                registry.sources.update(dict.fromkeys(added, self.sha256))
                registry.files.update(dict.fromkeys(added, self.file))
            if not self.defines:
                raise self._error("@classifier, @attack or @dataset", "none")
        except PluginError:
            for restore in undo:
                restore()
            raise

    @property
    def defines(self) -> Mapping[str, list[str]]:
        """The names that it has defined in this process, by field."""
        found = {
            registry.key: [name for name, source in registry.sources.items() if source == self.sha256]
            for registry in _REGISTRIES
        }
        return {key: sorted(names) for key, names in found.items() if names}

    def _execute(self, module: ModuleType) -> None:
        try:
            exec(compile(self.content, self.file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  (trusted, see above)
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.file]
            line = error.lineno if isinstance(error, SyntaxError) else next(iter(lines), None)
            reason = f"{raised(error)} (line {line})" if line else raised(error)
            raise self._error("a file that runs", reason) from error

    def _error(self, expected: str, found: str) -> PluginError:
        return PluginError(f"--plugin {self.file}: expected {expected}, found {found}")


def read_plugin(file: str) -> Plugin:
    """The plug-in in a file; it is not run yet.

    Raises:
        PluginError: there is no such file, or it is no text.
    """
    try:
        content = plain(expanded(file)).read_bytes()
        content.decode()
        return Plugin(file, content)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "bytes that are not UTF-8 text"
        raise PluginError(f"--plugin: expected a Python file, found {file}: {reason}") from error


@contextmanager
def plugged(file: str | None = None) -> Iterator[Plugin | None]:
    """Within the block the names of the plug-in in `file` are known, if one is given; and what is added besides.

    Raises:
        PluginError: as `read_plugin` and `Plugin.install`.
    """
    with ExitStack() as scopes:
        for registry in _REGISTRIES:
            scopes.enter_context(registry.scope())
        plugin = None if file is None else read_plugin(file)
        if plugin is not None:
            plugin.install()
        yield plugin
