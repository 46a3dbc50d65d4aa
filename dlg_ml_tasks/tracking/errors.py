"""What the tracking layer raises when a person can mend it."""

from __future__ import annotations


class TrackingUnreachable(ConnectionError):
    """The tracking server does not answer."""


class ContentChanged(ValueError):
    """Downloaded bytes are not those that a reference names."""


class UnknownModel(LookupError):
    """No such model, version or alias in the registry."""
