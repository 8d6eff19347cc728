"""The keys of a client for an encrypted connection (CURVE, `sdk/PROTOCOL.md` section 1.2).

A key is 32 bytes, written as 40 characters of Z85. Files are those of pyzmq (`zmq.auth`) and of
`worldwire serve --new-key FILE`: FILE holds a public key, FILE_secret a pair.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import zmq
import zmq.auth
from zmq.utils import z85

from worldwire.errors import MachineError, WrongKeyError

KEY_CHARACTERS: Final = 40
KEY_BYTES: Final = 32


@dataclass(frozen=True)
class KeyPair:
    """A public key and its secret, both as Z85."""

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def fresh(cls) -> Self:
        """A new pair."""
        check_available()
        return cls(*zmq.curve_keypair())

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The pair of a secret file; WrongKeyError if it is none."""
        public, secret = _load(Path(path))
        if secret is None:
            raise WrongKeyError(
                f"{path} holds no secret key",
                expected="the file whose name ends in _secret",
                remedy="`worldwire serve --new-key FILE` writes FILE and FILE_secret",
            )
        return cls(public, secret)


@dataclass(frozen=True)
class ClientKeys:
    """What a client needs to talk to a server with keys."""

    server: bytes
    own: KeyPair

    @classmethod
    def of(cls, server_key: str | Path | None, client_key: str | Path | None) -> ClientKeys | None:
        """The keys behind what a caller gave; None without a server key.

        server_key: 40 characters of Z85, or a file that holds them. client_key: a secret file; without one a
        fresh pair. WrongKeyError for what is no key.
        """
        if server_key is None:
            if client_key is not None:
                raise WrongKeyError(
                    "a client key came without a server key",
                    expected="the public key of the server too",
                    remedy="give server_key: the server's administrator has it in a file",
                )
            return None
        check_available()
        own = KeyPair.fresh() if client_key is None else KeyPair.read(client_key)
        return cls(public_key(server_key), own)


def public_key(text_or_file: str | Path) -> bytes:
    """The public key that is written out or stands in a file, as Z85; WrongKeyError if it is none."""
    text = str(text_or_file)
    if len(text) == KEY_CHARACTERS and not Path(text).exists():
        return _checked(text.encode(), "the key")
    return _load(Path(text))[0]


def check_available() -> None:
    """MachineError unless the installed libzmq can encrypt."""
    if not zmq.has("curve"):
        raise MachineError(
            "this libzmq has no CURVE encryption",
            expected="a libzmq that was built with libsodium or tweetnacl",
            remedy="pip install --force-reinstall pyzmq, or use an SSH tunnel",
        )


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise WrongKeyError(
            f"no key at {path}",
            expected=f"{KEY_CHARACTERS} characters of Z85, or a file of `worldwire serve --new-key`",
            got=str(error),
            remedy="copy the server's public key file to this machine",
        ) from error
    return _checked(public, str(path)), None if secret is None else _checked(secret, str(path))


def _checked(key: bytes, where: str) -> bytes:
    """The key itself if it is 32 bytes in Z85."""
    try:
        fits = len(z85.decode(key)) == KEY_BYTES
    except (ValueError, KeyError, OverflowError) as error:
        raise WrongKeyError(f"{where} is no Z85", got=str(error)) from error
    if not fits:
        raise WrongKeyError(
            f"{where} has the wrong length", expected=f"{KEY_CHARACTERS} characters", got=f"{len(key)}"
        )
    return key
