"""Code and weights that a user gives a search beside its space: a plug-in, files of weights, a torch module."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from components.classifiers.catalogue import CLASSIFIERS
from components.classifiers.weights import WeightsFile, file_of, packed, provide, providing
from tune.errors import Refused

if TYPE_CHECKING:
    from torch import nn

    from components.plugins import Plugin
    from tune.space.space import SearchSpace
    from tune.storage.folder import Storage

GIVEN = "given"  # names the classifier from Python in a space, and its weights
FOLDER = "given"  # of an experiment, for the weights


@dataclass(frozen=True)
class UserCode:
    """A user's plug-in, classifier and weights, as they are sent to every node with the trials.

    Attributes:
        plugin: of `--plugin`.
        classifier: the module of `search(classifier=…)`, which Ray carries like any argument.
        weights: name in the space → sha256; the files lie in the experiment's folder, where every node sees them.
    """

    plugin: Plugin | None = None
    classifier: nn.Module | None = None
    weights: Mapping[str, str] = field(default_factory=dict)

    @property
    def overrides(self) -> dict[str, Any]:
        """Fields of the space that the classifier from Python fixes."""
        if self.classifier is None:
            return {}
        return {"classifier.architecture": GIVEN, "classifier.weights": GIVEN}

    def install(self, home: Storage | None = None) -> None:
        """Makes its names known in this process; the weights are read from the experiment's folder `home`.

        Raises:
            PluginError: the plug-in cannot be used here.
        """
        if self.plugin is not None:
            self.plugin.install()
        if self.classifier is not None and GIVEN not in CLASSIFIERS:
            module = self.classifier
            CLASSIFIERS.register(GIVEN)(lambda image_shape, classes: copy.deepcopy(module))
            CLASSIFIERS.sources[GIVEN] = hashlib.sha256(_described(module).encode()).hexdigest()
        if home is not None:
            for name, sha256 in self.weights.items():
                provide(WeightsFile(name, sha256, partial(home.child(FOLDER).read, f"{sha256}.safetensors")))

    def with_weights(self, space: SearchSpace) -> UserCode:
        """The same, with all files of weights that the space names."""
        names = [name for name in space.values("classifier.weights") or () if name is not None]
        files = [file_of(name) for name in names]
        for file in files:
            provide(file)  # what is read of it later is what was found now
        return UserCode(self.plugin, self.classifier, {file.name: file.sha256 for file in files})

    def keep(self, home: Storage) -> None:
        """Copies the weights to the experiment's folder, where they are not yet."""
        for name, sha256 in self.weights.items():
            if not home.child(FOLDER).exists(f"{sha256}.safetensors"):
                home.child(FOLDER).write(f"{sha256}.safetensors", file_of(name).read())

    def record(self) -> dict[str, Any]:
        """The entry for the experiment's record."""
        said: dict[str, Any] = {}
        if self.plugin is not None:
            said["plugin"] = {"file": self.plugin.file, "sha256": self.plugin.sha256, "defines": self.plugin.defines}
        if self.weights:
            said["weights"] = dict(self.weights)
        if self.classifier is not None:
            said["classifier"] = {"class": type(self.classifier).__qualname__, "sha256": CLASSIFIERS.sources[GIVEN]}
        return said

    def check_resumed(self, record: Mapping[str, Any]) -> None:
        """Checks that a resumed search is given the same plug-in and module as before.

        Raises:
            Refused: a plug-in or a module that is missing, or another one.
        """
        if not record:
            return  # it is damaged, and is written again
        before = record.get("plugin") or {}
        now = None if self.plugin is None else self.plugin.sha256
        if (wanted := before.get("sha256")) != now:
            expected = f"{before['file']}, sha256 {wanted[:12]}…" if wanted else "none"
            found = f"{self.plugin.file}, sha256 {self.plugin.sha256[:12]}…" if self.plugin else "none"
            raise Refused(
                f"--plugin: expected what this search was begun with, {expected}, found {found}; "
                f"a resumed search keeps its plug-in (choose another --name for a new one)"
            )
        begun = (record.get("classifier") or {}).get("sha256")
        if begun != (CLASSIFIERS.sources[GIVEN] if self.classifier is not None else None):
            had = f"search(classifier=…) with its {record['classifier']['class']}" if begun else "none"
            found = "none" if self.classifier is None else f"another {type(self.classifier).__qualname__}"
            raise Refused(f"classifier: expected what this search was begun with, {had}, found {found}")

    def check_weights(self, record: Mapping[str, Any], home: Storage) -> None:
        """Checks that the weights of a resumed search are the same as before.

        Raises:
            Refused: a file has changed since.
        """
        before = record.get("weights") or {}
        for name, sha256 in self.weights.items():
            if before.get(name, sha256) != sha256:
                raise Refused(
                    f"classifier.weights: {name}: expected sha256 {before[name][:12]}…, as when {home.uri} was begun, "
                    f"found {sha256[:12]}…"
                )


@contextmanager
def user_code_of(plugin: str | None, classifier: object) -> Iterator[UserCode]:
    """Registers the names of the plug-in and the classifier in this process for the block.

    Raises:
        Refused: the plug-in cannot be used, or the classifier is no torch module.
    """
    with ExitStack() as stack:
        stack.enter_context(providing())
        try:
            user_code = _read(stack, plugin, classifier)
            user_code.install()
        except ValueError as error:
            raise Refused(str(error)) from error
        yield user_code


def _read(stack: ExitStack, plugin: str | None, classifier: object) -> UserCode:
    """Reads and registers the user's code; `stack` removes its names when it closes."""
    stack.enter_context(CLASSIFIERS.scope())
    found = None
    if plugin is not None:
        from components.plugins import plugged  # numpy, which a refused space need not wait for

        found = stack.enter_context(plugged(plugin))
    if classifier is None:
        return UserCode(found)
    from torch import nn

    from components.classifiers.base import ImageClassifier
    from components.training import settle

    if not isinstance(classifier, nn.Module):
        raise ValueError(f"classifier: expected a torch.nn.Module, found {type(classifier).__name__}")
    content = packed(classifier.network if isinstance(classifier, ImageClassifier) else classifier)
    provide(WeightsFile(GIVEN, hashlib.sha256(content).hexdigest(), lambda: content))
    return UserCode(found, copy.deepcopy(settle(classifier)).cpu())  # a node may have no GPU


def _described(module: nn.Module) -> str:
    """All that tells a module from another of the same weights: class and layers, and of a `Victim` what these hide."""
    from components.classifiers.victim import Victim  # torch, which a search without a module need not wait for

    hidden = [f"{part.normalisation} {part.layer}" for part in module.modules() if isinstance(part, Victim)]
    return " ".join([type(module).__qualname__, str(module), *hidden])
