"""The models of the repository: written into the list that both servers read, and watched."""

from contextlib import suppress
from errno import ENOENT
from pathlib import Path

from service.up.output import say
from sluice.client import Client, ClientError, NotFound
from sluice.client.results import VersionStatus
from sluice.wire.model_config import write_config
from sluice.wire.versions import find_versions, survey, why_no_saved_model

ASK_TIMEOUT_S = 2.0


class Models:
    """Says, once each, what changes: what loads, what is served, and what is not and why.

    `names` are in the list; `unserved` are not, as their files show that they cannot be loaded,
    over which TensorFlow Serving would not start.
    """

    def __init__(self, repository: Path, config_file: Path) -> None:
        self._repository, self._config_file = repository, config_file
        self.names: list[str] = []
        self.unserved: dict[str, str] = {}
        self._told: dict[tuple[str, int], str] = {}  # what was said last of a version
        self._versions: dict[str, list[VersionStatus]] = {}
        self._fault = ""

    def rescan(self) -> None:
        """Bring the list to what is on disk. Raises OSError where that cannot be read."""
        if self.names and not self._repository.is_dir():
            raise FileNotFoundError(ENOENT, "it is gone", str(self._repository))
        found, unserved = _on_disk(self._repository)
        # What is in the list stays there while it has a version: the server has it loaded, perhaps.
        names = [name for name in found if name in self.names or name not in unserved]
        write_config(self._config_file, self._repository, names)
        self.names = names
        unserved = {name: reason for name, reason in unserved.items() if name not in names}
        for name, reason in unserved.items():
            if self.unserved.get(name) != reason:
                say(f"{name} is not served: {reason}")
        self.unserved = unserved

    def follow(self, client: Client) -> None:
        """`rescan`, then `look`; a disk that cannot be read changes nothing, and is said once."""
        try:
            self.rescan()
        except OSError as error:
            fault = f"{error.filename} cannot be read ({error.strerror})"
        else:
            fault = ""
        if fault and fault != self._fault:
            say(f"{fault}; what is served stays as it was")
        self._fault = fault
        self.look(client)

    def look(self, client: Client) -> None:
        """Ask the model server how the models are; one that does not answer has no news."""
        try:
            self._versions = {name: _versions(client, name) for name in self.names}
        except ClientError:
            return
        self._told = {
            (name, version.version): self._tell(name, version)
            for name, versions in self._versions.items()
            for version in versions
        }

    def served(self) -> list[str]:
        return [name for name in self.names if "AVAILABLE" in self._states(name)]

    def missing(self) -> list[str]:
        """What is not served, or not yet."""
        return sorted({*self.names, *self.unserved} - {*self.served()})

    def settled(self) -> bool:
        """Whether every model in the list is served, or could not be loaded."""
        return all(self._states(name) & {"AVAILABLE", "failed"} for name in self.names)

    def _states(self, name: str) -> set[str]:
        return {
            "failed" if _has_failed(version) else version.state
            for version in self._versions.get(name, [])
        }

    def _tell(self, name: str, version: VersionStatus) -> str:
        """What is to be said of it now, which is said unless it was already."""
        told = self._told.get((name, version.version), "")
        which = f"{name} version {version.version}"
        if version.state == "LOADING":  # again, of one that has failed, is no news
            news = told or f"Loading {which}"
        elif version.state == "AVAILABLE":
            news = f"{which} is served"
        elif _has_failed(version):
            news = f"{which} is not served: {self._reason(name, version)}"
        else:
            news = ""
        if news != told:
            say(news)
        return news

    def _reason(self, name: str, version: VersionStatus) -> str:
        directory = self._repository / name / str(version.version)
        return (
            f"{version.error}\nIt is tried again when its files change: copy or publish it again, "
            f"or take {directory} away"
        )


def _on_disk(repository: Path) -> tuple[list[str], dict[str, str]]:
    """The models, sorted, and by name why what looks like one cannot be served."""
    if not repository.is_dir():
        return [], {}
    models, unserved = survey(repository)
    for name, directory in models.items():
        with suppress(OSError):  # taken away meanwhile
            versions = find_versions(directory).values()
            reasons = [reason for each in versions if (reason := why_no_saved_model(each))]
            if reasons and len(reasons) == len(versions):
                unserved[name] = reasons[-1]
    return list(models), unserved


def _has_failed(version: VersionStatus) -> bool:
    return version.state == "END" and bool(version.error)


def _versions(client: Client, name: str) -> list[VersionStatus]:
    try:
        return client.status(name, timeout_s=ASK_TIMEOUT_S)
    except NotFound:  # not begun
        return []
