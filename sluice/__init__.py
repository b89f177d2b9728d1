"""Sluice's ground floor: the Python client that other people import, and the wire under it all.

    from sluice import Client

    with Client("http://localhost:8080") as client:
        print(client.predict("digits", "three.png").labels)

`service`, `training` and the client stand on `sluice.wire`; nothing here imports them, tensorflow,
flask or gunicorn. The client is loaded when a name of its is first asked for, and httpx or grpc
when a client is made that speaks it: who wants the wire alone pays for nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sluice.client
    from sluice.client import *  # noqa: F403 - all that its __all__ names, and no list of it here

    __all__ = []
    __all__ += sluice.client.__all__


def __getattr__(name: str) -> Any:
    client = import_module("sluice.client")
    if name == "client":
        return client
    if name == "__all__" or name in client.__all__:
        return getattr(client, name)
    raise AttributeError(f"module 'sluice' has no attribute {name!r}")


def __dir__() -> list[str]:
    client = import_module("sluice.client")
    return [*globals(), *client.__all__]
