"""What is made for the first thread that asks for it, while the others that do wait."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Once(Generic[Made]):
    """`make(*key)`, kept for as many keys as `most`: those that were asked for last. What it raises
    is raised to all who wait, and not kept. Thread-safe.

    >>> twice = Once(lambda x: [x, x], most=1)
    >>> twice(1) is twice(1)
    True
    """

    def __init__(self, make: Callable[..., Made], most: int) -> None:
        self._make, self._most = make, most
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Hashable, ...], Future[Made]] = OrderedDict()

    def __call__(self, *key: Hashable) -> Made:
        with self._lock:
            future = self._kept.get(key)
            if is_first := future is None:
                future = self._kept[key] = Future()
                if len(self._kept) > self._most:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(key)
        if is_first:
            try:
                future.set_result(self._make(*key))
            except BaseException as error:
                future.set_exception(error)
                with self._lock:
                    if self._kept.get(key) is future:
                        del self._kept[key]
        return future.result()
