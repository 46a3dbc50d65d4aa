"""The engine's numbers for the states of drops, executions and sessions."""

from __future__ import annotations

from enum import IntEnum


class DropState(IntEnum):
    """The engine's states of a drop."""

    INITIALIZED = 0
    WRITING = 1
    COMPLETED = 2
    ERROR = 3
    EXPIRED = 4
    DELETED = 5
    CANCELLED = 6
    SKIPPED = 7


class ExecutionState(IntEnum):
    """The engine's states of an application's execution."""

    NOT_RUN = 0
    RUNNING = 1
    FINISHED = 2
    ERROR = 3
    CANCELLED = 4
    SKIPPED = 5


class SessionState(IntEnum):
    """The engine's states of a session."""

    PRISTINE = 0
    BUILDING = 1
    DEPLOYING = 2
    RUNNING = 3
    FINISHED = 4
    CANCELLED = 5
    FAILED = 6


ENDED = (SessionState.FINISHED, SessionState.CANCELLED, SessionState.FAILED)

SUCCEEDED = (DropState.COMPLETED, DropState.EXPIRED, DropState.DELETED, DropState.SKIPPED)
"""A data drop that is expired or deleted was complete before."""

UNFINISHED = (DropState.INITIALIZED, DropState.WRITING)
