"""Keeps the engine's log handlers off the root logger: one handler passes each record to the drop and the session it belongs to.

The engine adds a handler per drop and one per session to the root logger and never removes them. Every record then visits all of
them, so that logging becomes slower with each session, and their drops' memory and the sessions' files are never freed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable


class DropLogs(logging.Handler):
    """Holds the engine's handlers by what their filters let through, until the session is removed.

    `current_session` tells the session whose drops this thread is making.
    """

    def __init__(self, current_session: Callable[[], str]) -> None:
        super().__init__()
        self._current_session = current_session
        self._guard = threading.Lock()
        self._of_drops: defaultdict[str, dict[str, list[logging.Handler]]] = defaultdict(lambda: defaultdict(list))
        self._of_sessions: dict[str, logging.Handler] = {}
        # The drops' handlers read `message` and `asctime`, which a formatter leaves in a record.
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self.formatter.converter = time.gmtime  # type: ignore[union-attr]

    def install(self) -> None:
        """Take over what the engine adds to the root logger from here on; other handlers are added as ever."""
        root = logging.getLogger()
        add_to_root = root.addHandler

        def add(hdlr: logging.Handler) -> None:
            if not self._take(hdlr):
                add_to_root(hdlr)

        # The engine offers no way to choose the logger of these handlers.
        root.addHandler = add  # type: ignore[method-assign]
        add_to_root(self)

    def rest(self, session: str) -> None:
        """Close the file of a session that has ended; a later record opens it again."""
        with self._guard:
            handler = self._of_sessions.get(session)
        if handler is not None:
            handler.close()

    def forget(self, session: str) -> None:
        """Close a removed session's file and free its drops' records and loggers."""
        self.rest(session)
        with self._guard:
            self._of_sessions.pop(session, None)
            keys = set(self._of_drops.pop(session, ()))
        _forget_loggers(keys)

    def count(self) -> int:
        """How many handlers are held."""
        with self._guard:
            drops = (handlers for of_session in self._of_drops.values() for handlers in of_session.values())
            return len(self._of_sessions) + sum(map(len, drops))

    def emit(self, record: logging.LogRecord) -> None:
        session, drop = getattr(record, "session_id", ""), getattr(record, "drop_uid", "")
        with self._guard:
            of_session = self._of_drops.get(session)
            handlers = list(of_session.get(drop, ())) if of_session else []
            if session in self._of_sessions:
                handlers.append(self._of_sessions[session])
        if handlers:
            self.format(record)
        for handler in handlers:
            handler.handle(record)

    def _take(self, handler: logging.Handler) -> bool:
        """Hold a handler that lets through the records of one drop or session only."""
        for each in handler.filters:
            session, uid = getattr(each, "sessionId", None), getattr(each, "uid", None)
            with self._guard:
                if session is not None:
                    self._of_sessions[session] = handler
                    return True
                if uid is not None:
                    of_session = self._of_drops[self._current_session()]
                    for key in {uid, getattr(each, "humanKey", uid)}:
                        of_session[key].append(handler)
                    return True
        return False


def _forget_loggers(uids: set[str]) -> None:
    """Free the logger that the engine makes for each drop; loggers are kept by name, and in the place of a missing parent."""
    known = logging.Logger.manager.loggerDict
    gone = {known.pop(name) for name in list(known) if name.rpartition("'>.")[2] in uids}
    for placeholder in known.values():
        if isinstance(placeholder, logging.PlaceHolder):
            for logger in gone & set(placeholder.loggerMap):
                del placeholder.loggerMap[logger]  # type: ignore[arg-type]
