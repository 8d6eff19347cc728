"""A cable between a client and a server that a test can pull: a TCP forwarder in threads."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Cable:
    """Forwards a free port of this machine to `endpoint`. Use it as a context manager."""

    def __init__(self, endpoint: str):
        parts = urlsplit(endpoint)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._plugged, self._frozen = threading.Event(), threading.Event()
        self._plugged.set()
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def pull(self) -> None:
        """Every connection breaks, and new ones lead nowhere until `plug`."""
        self._plugged.clear()
        with self._lock:
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
            self._open.clear()

    def plug(self, endpoint: str | None = None) -> None:
        """Connections work again, perhaps to another server."""
        if endpoint is not None:
            parts = urlsplit(endpoint)
            self._target = (parts.hostname, parts.port)
        self._plugged.set()

    def freeze(self, frozen: bool = True) -> None:
        """Connections stay and nothing goes through."""
        (self._frozen.set if frozen else self._frozen.clear)()

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, *_: object) -> None:
        self.pull()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if not self._plugged.is_set():
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                with self._lock:
                    self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                while self._frozen.is_set() and source.fileno() >= 0:
                    threading.Event().wait(0.02)
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
