"""What can go wrong between this program and the engine.

EngineError
├── EngineUnreachable  no answer from the data island manager
└── EngineRefused      it answered that it could not do what was asked
"""

from __future__ import annotations


class EngineError(RuntimeError):
    """Base of the errors of the engine; the message says what to do."""


class EngineUnreachable(EngineError):
    """No answer from the data island manager."""


class EngineRefused(EngineError):
    """The data island manager answered that it could not do what was asked."""
