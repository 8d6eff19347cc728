"""Does a server keep the protocol? The clauses of `sdk/PROTOCOL.md` that a client can see, each a function.

runner.py     clauses and results: what runs, in which order, what counts
peer.py       a client without manners: sends anything, hears everything
transport.py  sections 1 to 3: parts, bytes, kinds, versions
sessions.py   sections 4 to 6: states, requests, answers
resuming.py   section 5.4: lost connections
live.py       section 7: credit, inputs, receipts
formats.py    sections 8 and 9: pictures
limits.py     sections 10 and 11: errors, limits, time-outs
"""

from worldwire.conformance.runner import Clause, Outcome, Result, Target, clauses, run

__all__ = ["Clause", "Outcome", "Result", "Target", "clauses", "run"]
