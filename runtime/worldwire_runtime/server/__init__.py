"""The server: sockets and a schedule; it knows sessions only by their small interface, and no tensors.

One message goes through these files:

    router.py    the ROUTER socket: bytes in, bytes out; security.py its keys
    loop.py      what each message means, who may do what, who is alive       (the main thread)
    clients.py   who is connected; sessions.py the sessions, their queues and credit, and whose turn it is
    live.py      held keys, look and poses -> the inputs of each frame
    worker.py    one thread that runs one job of one session at a time        (tensors live here)
    outbox.py    what goes out, in order; pixels.py frames -> payloads          (a thread that encodes)
"""

from worldwire_runtime.server.loop import Loading, Server

__all__ = ["Loading", "Server"]
