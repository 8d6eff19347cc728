"""The viewer: a window onto a live session, and a scripted recorder for machines without a display.

command.py   the verb `worldwire play`
play.py      with a display: the window; without: the scripted walk
window.py    the pygame loop: events -> controls -> link -> playback (worldwire.pacing) -> screen
link.py      a thread that owns the connection, so that the window never waits for the network
state.py     what is known at a moment                         (pure)
controls.py  keys and mouse -> held keys, look and commands        (pure)
meters.py    frame rate and action-to-photon latency               (pure)
script.py    scripted walks                                        (pure)
hud.py       what is drawn over the picture
recording.py mp4 files, screenshots and contact sheets
hosts.py     where a world is found: a server of our own, or an address
local.py     a `worldwire serve` process of our own
guarded.py   how that process notices that we are gone
headless.py  a scripted walk without a window
images.py    pictures to arrays and back
progress.py  one line on the terminal
"""
