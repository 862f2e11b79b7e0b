# SPDX-License-Identifier: Apache-2.0
"""A place for one message between the thread that receives and the thread that works."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Holds the newest item only; safe between threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._closed = False

    def put(self, item: T) -> bool:
        """Leave item, in place of one that nobody took: then return True, it was dropped."""
        with self._changed:
            dropped = self._item is not None
            self._item = item
            self._changed.notify_all()
        return dropped

    def take(self) -> T | None:
        """Wait for an item and take it; None when the mailbox was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._item is not None)
            if self._closed:
                return None
            item, self._item = self._item, None
            return item

    def close(self) -> None:
        """Forget the item, and let take return None from now on."""
        with self._changed:
            self._closed = True
            self._item = None
            self._changed.notify_all()
