"""Sluice's ground floor: the Python client that other people import, and the wire under it all.

    from sluice import Client

    with Client("http://localhost:8080") as client:
        print(client.predict("digits", "three.png").labels)

`service`, `training` and the client stand on `sluice.wire`; nothing here imports them, tensorflow,
flask or gunicorn. Nor httpx or grpc: a client loads the one that it speaks when it is made.
"""

import sluice.client
from sluice.client import *  # noqa: F403 - all that its __all__ names, and no list of it here

__all__ = []
__all__ += sluice.client.__all__
