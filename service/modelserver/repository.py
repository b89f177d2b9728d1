"""The models being served: watches their directories, loads and unloads versions, finds them.

One thread polls and decides; loads and unloads run in a small pool, so that neither a poll nor a
request ever waits for TensorFlow. A version that is no longer wanted stays until one that is
wanted is AVAILABLE (TensorFlow Serving's availability-preserving policy).
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from service.modelserver.errors import FailedPrecondition, InvalidArgument, NotFound, Unknown
from service.modelserver.policy import choose_versions, find_models, index_configs
from service.modelserver.servable import Servable
from service.modelserver.version import Load, Version
from sluice.wire.contract import State
from sluice.wire.protos.serving_pb2 import ModelConfig, ModelSpec, ModelVersionStatus
from sluice.wire.versions import find_versions, why_no_model

log = logging.getLogger(__name__)


class RepositoryOptions(NamedTuple):
    """How to watch; the flags of the same names say more."""

    poll_s: float = 0.5  # 0 or less: look once
    load_threads: int = 1
    max_load_retries: int = 5
    load_retry_interval_s: float = 60.0
    unavailable_labels: bool = False
    any_unavailable_labels: bool = False


class Repository:
    """All models by name. `start()` begins to watch; `stop()` unloads everything."""

    def __init__(
        self,
        load: Load,
        options: RepositoryOptions | None = None,
        directory: Path | None = None,
    ) -> None:
        self._load = load
        self._options = options or RepositoryOptions()
        self._directory = directory
        self._configs: dict[str, ModelConfig] = {}
        self._version_labels: dict[str, dict[str, int]] = {}
        self._versions: dict[str, dict[int, Version]] = {}
        self._missing: dict[str, str] = {}  # by model, why no version of it was found
        self._busy: set[Version] = set()
        self._changed = threading.Condition()
        # Looks at the disk: asked for, and done. Counted, so that who asks for one can tell a look
        # that began after that from one that was under way.
        self._asked = self._answered = 0
        self._stopping = False
        self._pool = ThreadPoolExecutor(self._options.load_threads, "load")
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)

    # ---- requests ----

    @contextmanager
    def lease(self, spec: ModelSpec) -> Iterator[tuple[int, Servable]]:
        """The version that `spec` asks for and its servable, which stays loaded inside the block.

        Raises InvalidArgument for a spec without a name and for an unknown label, NotFound where
        nothing is available ("predict, missing label", "predict, missing version").
        """
        with self._changed:  # or the version might be unloaded before it is held
            version = self._find(spec)
            servable = version.hold()
        try:  # without the lock: a run takes as long as it takes
            yield version.number, servable
        finally:
            version.release()

    def status(self, spec: ModelSpec) -> list[ModelVersionStatus]:
        """Newest first; a label is ignored ("status, label"). Raises NotFound."""
        versions = self._versions.get(spec.name, {})
        if spec.HasField("version"):
            found = versions.get(spec.version.value)
            if found is None:
                raise NotFound(f"Could not find version {spec.version.value} of model {spec.name}")
            return [found.status()]
        if not versions:
            reason = self._missing.get(spec.name, "")
            raise NotFound(
                f"Could not find any versions of model {spec.name}" + (reason and f": {reason}")
            )
        return [versions[number].status() for number in sorted(versions, reverse=True)]

    # ---- configuration ----

    def configure(self, configs: Iterable[ModelConfig]) -> None:
        """Serve these models and no others; a label that may not be set changes nothing.

        Raises InvalidArgument for a config that contradicts itself and FailedPrecondition for a
        label on a version that is not available, and where a directory says what the models are.
        """
        if self._directory is not None:
            raise FailedPrecondition(
                f"The models are the directories in {self._directory} (--model_repository), "
                "whatever a config says: add or remove a directory there"
            )
        by_name = index_configs(configs)
        with self._changed:
            self._version_labels = {
                name: self._check_labels(config) for name, config in by_name.items()
            }
            self._configs = by_name
            self._wake()

    def reload(self, configs: Iterable[ModelConfig]) -> None:
        """`configure`, then wait until the models that are new are available.

        Raises Unknown where one of them is not, as TensorFlow Serving does.
        """
        configs = list(configs)  # it is gone through twice
        new = {config.name for config in configs} - self._configs.keys()
        self.configure(configs)
        self.wait_until_settled()
        missing = sorted(name for name in new if self._latest(name) is None)
        if missing:
            names = ", ".join(f"{{name: {name} version: -1}}" for name in missing)
            raise Unknown(f"{len(missing)} servable(s) did not become available: {{{names}}}")

    def _check_labels(self, config: ModelConfig) -> dict[str, int]:
        for label, number in config.version_labels.items():
            # One flag allows a label that is new, or stays where it is; the other one that moves.
            known = self._version_labels.get(config.name, {}).get(label, number)
            allowed = self._options.any_unavailable_labels or (
                self._options.unavailable_labels and known == number
            )
            if not allowed and not self._is_available(config.name, number):
                raise FailedPrecondition(
                    f"Request to assign label to version {number} of model {config.name}, "
                    "which is not currently available for inference"
                )
        return dict(config.version_labels)

    # ---- life ----

    def start(self) -> None:
        self._watcher.start()

    def wait_until_settled(self, timeout_s: float | None = None) -> bool:
        """Whether every version wanted now has been loaded or has failed within `timeout_s`."""
        with self._changed:
            self._wake()
            asked = self._asked
            return self._changed.wait_for(
                lambda: self._stopping or (self._answered >= asked and not self._busy), timeout_s
            )

    def stop(self) -> None:
        """Stop watching, then unload every version once its requests are done."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._watcher.is_alive():
            self._watcher.join()
        self._pool.shutdown()  # waits for loads under way; after it nobody else changes a state
        for versions in self._versions.values():
            for version in versions.values():
                if version.state == State.AVAILABLE:
                    version.unload()

    # ---- finding ----

    def _find(self, spec: ModelSpec) -> Version:
        if not spec.name:
            raise InvalidArgument("ModelSpec has no name specified.")
        number = self._number(spec)
        version = (
            self._latest(spec.name)
            if number is None
            else (self._versions.get(spec.name, {}).get(number))
        )
        if version is None or version.state != State.AVAILABLE:
            raise _not_found(spec, number)
        return version

    def _number(self, spec: ModelSpec) -> int | None:
        if spec.HasField("version"):
            return spec.version.value
        if not spec.HasField("version_label"):
            return None
        number = self._version_labels.get(spec.name, {}).get(spec.version_label)
        if number is None:
            raise InvalidArgument(f"Unrecognized servable version label: {spec.version_label}")
        return number

    def _latest(self, name: str) -> Version | None:
        available = [
            version
            # A copy: the watcher adds versions meanwhile.
            for version in list(self._versions.get(name, {}).values())
            if version.state == State.AVAILABLE
        ]
        return max(available, key=lambda version: version.number, default=None)

    def _is_available(self, name: str, number: int) -> bool:
        version = self._versions.get(name, {}).get(number)
        return version is not None and version.state == State.AVAILABLE

    # ---- watching ----

    def _wake(self) -> None:
        """Ask for a look at the disk; the caller holds `_changed`."""
        self._asked += 1
        self._changed.notify_all()

    def _watch(self) -> None:
        timeout = self._options.poll_s if self._options.poll_s > 0 else None
        while not self._stopping:
            asked = self._asked  # read before: what is asked for during the look needs another
            self._poll()
            with self._changed:
                self._answered = asked
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self._stopping or self._asked > self._answered, timeout
                )

    def _poll(self) -> None:
        missing: dict[str, str] = {}
        if self._directory is not None:
            try:
                self._configs, missing = find_models(self._directory)
            except OSError as error:  # what is loaded stays: the disk may come back
                missing = {"*": f"{self._directory} cannot be listed: {error.strerror}"}
        for name, config in self._configs.items():  # replaced as a whole, never changed
            base = Path(config.base_path)
            try:
                present = find_versions(base)
                reason = None if present else why_no_model(base)
            except OSError as error:  # here too
                missing[name] = f"{base} cannot be listed: {error.strerror}"
                continue
            if reason:
                missing[name] = reason
            self._aspire(name, choose_versions(config.model_version_policy, present))
        # Models that are no longer configured: no version of them is wanted.
        for name in self._versions.keys() - self._configs.keys():
            self._aspire(name, {})
        self._tell(missing)

    def _tell(self, missing: dict[str, str]) -> None:
        """Log what is new of it: a look is taken twice a second."""
        for name, reason in missing.items():
            if self._missing.get(name) != reason:
                log.warning("No version of model %s was found: %s", name, reason)
        self._missing = missing

    def _aspire(self, name: str, wanted: dict[int, Path]) -> None:
        """Take the next steps from the versions there are to those that are wanted."""
        versions = self._versions.setdefault(name, {})
        for number, path in wanted.items():
            known = versions.get(number)
            # A number that moved (the config names another base_path) waits for the old one's end.
            if known is None or (known.path != path and known.state == State.END):
                versions[number] = Version(name, number, path, self._changed)
        options = self._options
        for number in sorted(wanted, reverse=True):  # the newest first: it is what most ask for
            version = versions[number]
            if version not in self._busy and version.is_due(
                options.max_load_retries, options.load_retry_interval_s
            ):
                self._begin(version, lambda version: version.load(self._load))
        available = {number for number in versions if versions[number].state == State.AVAILABLE}
        if not wanted or available & wanted.keys():
            for number in available - wanted.keys():
                if versions[number] not in self._busy:
                    self._begin(versions[number], Version.unload)

    def _begin(self, version: Version, work: Callable[[Version], None]) -> None:
        with self._changed:
            self._busy.add(version)
        self._pool.submit(self._finish, version, work)

    def _finish(self, version: Version, work: Callable[[Version], None]) -> None:
        try:
            work(version)
        except Exception:  # a bug of ours must not leave the version busy for ever
            log.exception("%s", version)
        finally:
            with self._changed:
                self._busy.discard(version)
                self._wake()


def _not_found(spec: ModelSpec, number: int | None) -> NotFound:
    wanted = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
    return NotFound(f"Servable not found for request: {wanted}")
