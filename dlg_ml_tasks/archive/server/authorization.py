"""Who may do what: HTTP Basic authentication against the users file, in the words of the NGAS protocol."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import os
import secrets
import stat
import time
from pathlib import Path

from .refusals import Refusal
from .users import EVERY_COMMAND, User, Users, UsersFileError, password_matches, unreadable

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 1.0
_MOST_REMEMBERED = 1000
# Of the body of a stranger, so that an honest client with a wrong password hears of it. A larger one is cut off.
_MOST_DRAINED = 64 * 2**20


class Authorization:
    """Decides about requests. A changed users file is taken up within a second; one that is wrong is not."""

    def __init__(self, path: Path) -> None:
        """Raises UsersFileError if the file cannot be used."""
        self._path = path
        self._stamp = _stamp(path)
        self._users = Users.read(path)
        self._looked = time.monotonic()
        # A password costs 50 ms to verify, a request must not. What is remembered is useless outside this process.
        self._key = secrets.token_bytes(32)
        self._verified: dict[bytes, User] = {}
        # One at a time: who guesses passwords keeps one core busy and not all.
        self._verifying = asyncio.Lock()
        _warn_of_readers(path)

    async def check(self, header: str | None, command: str) -> None:
        """Let pass a request with this Authorization header, or raise the Refusal (401 or 403)."""
        await self._look_again()
        if command in self._users.open_to_all or EVERY_COMMAND in self._users.open_to_all:
            return
        if not header:
            raise _refused("Unauthorized request received")
        if not (await self._user(header)).may(command):
            raise _refused("Unauthorized access denied", 403)

    async def _user(self, header: str) -> User:
        token = hashlib.blake2b(header.encode("utf-8", "surrogateescape"), key=self._key).digest()
        user = self._verified.get(token)
        if user is None:
            name, password = _name_and_password(header)
            async with self._verifying:
                # Another request may have brought the same meanwhile.
                user = self._verified.get(token) or await self._verify(name, password)
                if len(self._verified) >= _MOST_REMEMBERED:
                    self._verified.clear()
                self._verified[token] = user
        return user

    async def _verify(self, name: str, password: bytes) -> User:
        users = self._users
        user = users.users.get(name)
        if user is None:
            raise _refused("unknown user specified")
        if not await asyncio.to_thread(password_matches, password, user.password):
            logger.warning("Wrong password for the user %r", name)
            raise _refused(f"wrong password for user {name}")
        # The file may have changed meanwhile, and the password with it.
        return user if self._users is users else await self._verify(name, password)

    async def _look_again(self) -> None:
        if time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        try:
            stamp = await asyncio.to_thread(_stamp, self._path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._users = await asyncio.to_thread(Users.read, self._path)
        except UsersFileError as error:
            logger.error("%s The users known before stay.", error)
            return
        self._verified.clear()
        logger.info("The users file %s was read again", self._path)


def _name_and_password(header: str) -> tuple[str, bytes]:
    scheme, *values = header.split(" ")
    if scheme != "Basic":
        raise _refused(f"Invalid authentication scheme: {scheme[:40]}")
    if len(values) != 1 or not values[0]:
        raise _refused("Invalid Basic authentication, missing value")
    try:
        name, colon, password = base64.b64decode(values[0], validate=True).partition(b":")
        decoded = name.decode()
    except (binascii.Error, ValueError):
        raise _refused("Invalid Basic authentication, not base64 of UTF-8") from None
    if not colon:
        raise _refused("Invalid Basic authentication, no password provided")
    return decoded, password


def _refused(message: str, http_status: int = 401) -> Refusal:
    return Refusal(message, http_status, most_drained=_MOST_DRAINED)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return status.st_ino, status.st_mtime_ns, status.st_size


def _warn_of_readers(path: Path) -> None:
    if stat.S_IMODE(path.stat().st_mode) & 0o077 and os.name == "posix":
        logger.warning("The users file %s can be read by others: chmod 600 %s", path, path)
