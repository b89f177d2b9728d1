"""Which models are named: what /readyz waits for and what is listed."""

import logging
from pathlib import Path

from google.protobuf.text_format import ParseError

from service.gateway.settings import Settings
from service.gateway.variables import environment_variable
from sluice.wire.model_config import read_names

log = logging.getLogger(__name__)


class ModelList:
    """The names in the settings, and in the model server's models.config as it is now.

    A file that cannot be read changes nothing: the names are those that it had last. `problem` says
    why it cannot, where it never could.
    """

    def __init__(self, settings: Settings) -> None:
        self._named = [name.strip() for name in settings.models.split(",") if name.strip()]
        self._file = Path(settings.model_config_file) if settings.model_config_file else None
        self._in_file: list[str] | None = None
        self._logged = ""
        self.problem = ""

    def names(self) -> list[str]:
        """Reads the file. Those of the settings come first."""
        if self._file:
            self._read(self._file)
        return list(dict.fromkeys([*self._named, *(self._in_file or [])]))

    def _read(self, file: Path) -> None:
        try:
            self._in_file = read_names(file)
        except (OSError, UnicodeDecodeError, ParseError) as error:
            variable = environment_variable("model_config_file")
            why = error.strerror if isinstance(error, OSError) else str(error)
            problem = f"{variable}: {file} cannot be read ({why})"
        else:
            problem = ""
        self.problem = problem if self._in_file is None else ""
        if problem and problem != self._logged:
            kept = ", ".join(self._in_file or []) or "none"
            log.error("%s; its models stay as they were: %s", problem, kept)
        self._logged = problem
