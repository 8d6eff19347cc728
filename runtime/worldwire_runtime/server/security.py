"""CURVE: the key files of a server, and which clients it takes (ZAP, RFC 27)."""

from __future__ import annotations

import logging
import os
import struct
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import zmq
import zmq.auth
from zmq.utils import z85

from worldwire.errors import ConfigError, MachineError

log = logging.getLogger(__name__)

SECRET_SUFFIX: Final = "_secret"
PUBLIC_FILES: Final = "*"
ZAP_ADDRESS: Final = "inproc://zeromq.zap.01"
ZAP_DOMAIN: Final = b"worldwire"
HANDSHAKES_PER_TURN: Final = 8


class KeyPair(NamedTuple):
    """Both keys in Z85, 40 characters each."""

    public: bytes
    secret: bytes

    @classmethod
    def from_file(cls, path: Path) -> KeyPair:
        """The key pair of a `FILE_secret`; ConfigError when it holds none."""
        public, secret = _read(path)
        if secret is None:
            raise ConfigError(
                f"{path} holds no secret key",
                expected=f"the file with {SECRET_SUFFIX} at its end",
                remedy="make one with `worldwire serve --new-key FILE`",
            )
        return cls(public, secret)


def write_new_keys(path: Path) -> KeyPair:
    """Writes a new public key to `path` and both keys to `path` + "_secret", which only the owner can read.

    ConfigError when one of them is there already, MachineError when they cannot be written.
    """
    secret_path = path.with_name(path.name + SECRET_SUFFIX)
    for file in (path, secret_path):
        if file.exists():
            raise ConfigError(
                f"{file} is there already", remedy="take another name: a lost key cannot be made again"
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # private while the secret is in it
            made = zmq.auth.create_certificates(folder, "new")
            os.chmod(made[1], 0o600)
            os.replace(made[1], secret_path)
            os.replace(made[0], path)
    except OSError as error:
        raise MachineError(f"the keys cannot be written: {error}") from error
    return KeyPair.from_file(secret_path)


def require_curve() -> None:
    """MachineError when this libzmq was built without encryption."""
    if not zmq.has("curve"):
        raise MachineError("this libzmq has no CURVE", remedy="install pyzmq from its wheels")


class Gate:
    """Decides at each handshake whether a client's key is among the files of a folder.

    The folder is read each time, so a key that is added or taken away counts from the next handshake on.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folder: Path):
        self._folder = folder
        self._allowed()
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ZAP_ADDRESS)

    def answer(self) -> None:
        """Answers what libzmq asks; a flood of handshakes is answered in several turns."""
        for _ in range(HANDSHAKES_PER_TURN):
            if not self.socket.poll(0):
                return
            version, request, _, address, _, mechanism, *credentials = self.socket.recv_multipart()
            known = mechanism == b"CURVE" and credentials[0] in self._raw_keys()
            if not known:
                log.warning("refused a client at %s: its key is not in %s", address.decode(), self._folder)
            verdict = (b"200", b"OK") if known else (b"400", b"the server does not know this client key")
            self.socket.send_multipart([version, request, *verdict, b"", b""])

    def close(self) -> None:
        """Frees the socket."""
        self.socket.close(0)

    def _raw_keys(self) -> set[bytes]:
        try:
            return {z85.decode(key) for key in self._allowed()}
        except ConfigError as error:  # the folder changed under us
            log.error("%s", error)
            return set()

    def _allowed(self) -> list[bytes]:
        """The public keys in the folder; ConfigError when it cannot be read or a file in it is none."""
        if not self._folder.is_dir():
            raise ConfigError(
                f"{self._folder} is no folder", expected="a folder with a public key file of each client"
            )
        return [_read(path)[0] for path in sorted(self._folder.glob(PUBLIC_FILES)) if path.is_file()]


def _read(path: Path) -> tuple[bytes, bytes | None]:
    """Public and, if the file holds it, secret key."""
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} is no key file ({error})",
            expected="a file that `worldwire serve --new-key` or zmq.auth wrote",
        ) from error
    if public is None or len(public) != 40 or (secret is not None and len(secret) != 40):
        raise ConfigError(f"{path} holds no key", expected="40 characters of Z85")
    try:
        _ = [z85.decode(key) for key in (public, secret) if key is not None]
    except (KeyError, ValueError, struct.error) as error:
        raise ConfigError(f"{path} holds no key", expected="40 characters of Z85") from error
    return public, secret
