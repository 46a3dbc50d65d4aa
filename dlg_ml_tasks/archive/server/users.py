"""The users file: who may send which commands, with salted password hashes and never a password."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

EVERY_COMMAND = "*"

# The cost that OWASP names for scrypt with 16 MiB: 50 ms of one core here, so a guess is dear and a login is not.
_COST, _BLOCK_SIZE, _PARALLELISM = 2**14, 8, 1
_MOST_MEMORY = 64 * 2**20
_SALT_BYTES = 16


class UsersFileError(Exception):
    """The users file cannot be used: the message names the file, what is wrong and what to do."""


def hash_password(password: str) -> str:
    """`scrypt$N$r$p$salt$hash` with a new salt."""
    salt = secrets.token_bytes(_SALT_BYTES)
    key = _scrypt(password.encode(), salt, _COST, _BLOCK_SIZE, _PARALLELISM)
    return "$".join(["scrypt", str(_COST), str(_BLOCK_SIZE), str(_PARALLELISM), _text(salt), _text(key)])


def password_matches(password: bytes, hashed: str) -> bool:
    """Whether `hashed` was made from `password`. Takes some 50 ms on purpose, the same for every password."""
    cost, block_size, parallelism, salt, key = _parts(hashed)
    return hmac.compare_digest(_scrypt(password, salt, cost, block_size, parallelism), key)


def _valid_hash(hashed: str) -> str:
    cost, block_size, parallelism, salt, key = _parts(hashed)
    if len(salt) < 8 or len(key) < 16 or 128 * cost * block_size * parallelism >= _MOST_MEMORY:
        raise ValueError("a salt of 8 bytes, a hash of 16 bytes, and a cost below 64 MiB are needed")
    # OpenSSL's own conditions on the numbers.
    _scrypt(b"", salt, cost, block_size, parallelism)
    return hashed


def _valid_name(name: str) -> str:
    # Basic authentication ends the name at the first colon.
    if not name or ":" in name or not name.isprintable():
        raise ValueError(f"{name!r} is no user name: it must be printable, not empty, and without a colon")
    return name


class User(BaseModel):
    """What is kept of a user. `commands` are exact names, or `*` for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    password: Annotated[str, AfterValidator(_valid_hash)]
    commands: tuple[str, ...]

    def may(self, command: str) -> bool:
        """Whether the user is allowed to send `command`."""
        return EVERY_COMMAND in self.commands or command in self.commands


class Users(BaseModel):
    """The whole file: users by name, and the commands that nobody needs a password for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: dict[Annotated[str, AfterValidator(_valid_name)], User] = {}
    open_to_all: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Users:
        """Read a users file. Raises UsersFileError."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise unreadable(path, error) from error
        except ValidationError as error:
            raise UsersFileError(f"The users file {path} is wrong: {_first_fault(error)}. {_HOW_TO_MAKE}") from None

    def write(self, path: Path) -> None:
        """Replace the file in one step, readable by its owner only. Raises UsersFileError."""
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(self.model_dump(mode="json"), file, indent=2, ensure_ascii=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise UsersFileError(f"The users file {path} cannot be written: {error.strerror or error}") from error

    def with_user(self, name: str, user: User) -> Users:
        """These users with one added or replaced. Raises UsersFileError for a name that no user can have."""
        try:
            return Users(users={**self.users, name: user}, open_to_all=self.open_to_all)
        except ValidationError as error:
            raise UsersFileError(_first_fault(error)) from None

    def without_user(self, name: str) -> Users:
        """These users with one taken out. Raises KeyError if there is no such user."""
        return self.model_copy(update={"users": {key: user for key, user in self.users.items() if key != name}})


_HOW_TO_MAKE = "Make one with: dlg-ml ngas user FILE NAME"


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_input=False)[0]
    place = ".".join(str(part) for part in fault["loc"] if part != "[key]")
    return f"{place}: {fault['msg'].removeprefix('Value error, ')}".removeprefix(": ")


def unreadable(path: Path, error: OSError) -> UsersFileError:
    """What to raise for a file that cannot even be opened."""
    return UsersFileError(f"The users file {path} cannot be read: {error.strerror or error}. {_HOW_TO_MAKE}")


def _scrypt(password: bytes, salt: bytes, cost: int, block_size: int, parallelism: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=cost, r=block_size, p=parallelism, maxmem=_MOST_MEMORY, dklen=32)


def _parts(hashed: str) -> tuple[int, int, int, bytes, bytes]:
    try:
        scheme, cost, block_size, parallelism, salt, key = hashed.split("$")
        if scheme != "scrypt":
            raise ValueError(f"the scheme {scheme!r} is not known")
        return int(cost), int(block_size), int(parallelism), _bytes(salt), _bytes(key)
    except ValueError as error:
        raise ValueError("a password must be written as scrypt$N$r$p$salt$hash") from error


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
