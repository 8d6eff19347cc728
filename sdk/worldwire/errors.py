"""The typed errors of worldwire: each says what was expected, what came, and what to do next."""

from __future__ import annotations


class WorldwireError(Exception):
    """Base of every error that worldwire raises on purpose.

    `code` is the stable name that travels on the wire (`sdk/PROTOCOL.md`, section "Errors").
    """

    code = "error"

    def __init__(
        self, problem: str, *, expected: str | None = None, got: str | None = None, remedy: str | None = None
    ):
        self.problem, self.expected, self.got, self.remedy = problem, expected, got, remedy
        parts = [problem]
        if expected is not None:
            parts.append(f"expected: {expected}")
        if got is not None:
            parts.append(f"got: {got}")
        if remedy is not None:
            parts.append(f"to do: {remedy}")
        super().__init__("; ".join(parts))


class InputError(WorldwireError):
    """An input of a player is wrong: an unknown key, a NaN, a pose that is no rigid motion."""

    code = "bad_input"


class ImageError(WorldwireError):
    """A seed image has the wrong size or type, or its file cannot be read."""

    code = "bad_image"


class ConfigError(WorldwireError):
    """A preset, configuration key or value is unknown or out of range."""

    code = "bad_config"


class CheckpointError(WorldwireError):
    """A weights file does not hold exactly the tensors that the model needs."""

    code = "bad_checkpoint"


class DataError(WorldwireError):
    """A data shard is cut short, or its fields are wrong."""

    code = "bad_data"


class StateError(WorldwireError):
    """A call came at the wrong time (a step before a reset), or a saved state does not fit."""

    code = "bad_state"


class ProtocolError(WorldwireError):
    """A message does not follow the wire protocol."""

    code = "bad_message"


class VersionError(ProtocolError):
    """The other side speaks another major version of the protocol."""

    code = "version_mismatch"


class ConnectionLostError(WorldwireError):
    """The server is absent, went away, or did not answer in time."""

    code = "connection_lost"


class RequestLostError(ConnectionLostError):
    """The connection broke before the answer came; the session was resumed, so ask again.

    Whether the server did what was asked is not known: `Frame.index` and the next answer tell.
    """

    code = "request_lost"


class SessionLostError(ConnectionLostError):
    """The connection is there again and the session is not: the server was restarted, or it took too long."""

    code = "session_lost"


class WrongKeyError(WorldwireError):
    """The two sides do not agree on encryption: a key is missing, wrong, or the server has none."""

    code = "wrong_key"


class BusyError(WorldwireError):
    """The server has no room for another session."""

    code = "busy"


class MissingExtraError(WorldwireError):
    """A verb or feature needs packages that an optional extra installs."""

    code = "missing_extra"

    def __init__(self, what: str, extra: str):
        super().__init__(f"{what} needs the extra '{extra}'", remedy=f"pip install 'worldwire[{extra}]'")
        self.extra = extra


class MachineError(WorldwireError):
    """The machine lacks something: a display, EGL, a GPU, memory, a free port."""

    code = "machine"
