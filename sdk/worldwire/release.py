"""Which release of worldwire this is, for logs on the other side of a wire."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """The version number, or "uninstalled" in a checkout that nobody installed."""
    try:
        return version("worldwire")
    except PackageNotFoundError:
        return "uninstalled"
