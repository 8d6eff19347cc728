"""A live world inside a pygame loop of your own, in forty lines. Start a server first:

    worldwire serve --preset tiny
    python examples/play_pygame.py [tcp://127.0.0.1:5555]

WASD walks, the mouse looks, Esc ends. `worldwire play` is the grown-up version of this file.
"""

import sys

import pygame

import worldwire
from worldwire.protocol import DEFAULT_ADDRESS

KEYS = {pygame.K_w: "forward", pygame.K_s: "back", pygame.K_a: "left", pygame.K_d: "right"}
DEG_PER_PIXEL = 0.15
SCALE = 3

address = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_ADDRESS
with worldwire.connect(address) as client, client.session() as session:
    info = client.info
    frame = session.reset(seed=0)
    session.start()  # from here on the world runs by itself

    screen = pygame.display.set_mode((info.width * SCALE, info.height * SCALE))
    pygame.event.set_grab(True)
    pygame.mouse.set_visible(False)
    clock, held, playing = pygame.time.Clock(), frozenset(), True
    while playing:
        for event in pygame.event.get():
            quits = event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE
            playing = playing and event.type != pygame.QUIT and not quits

        pressed, (dx, dy) = pygame.key.get_pressed(), pygame.mouse.get_rel()
        keys = frozenset(name for key, name in KEYS.items() if pressed[key] and pygame.key.get_focused())
        if keys != held or dx or dy:
            session.send_input(keys, yaw_deg=dx * DEG_PER_PIXEL, pitch_deg=-dy * DEG_PER_PIXEL)
            held = keys

        # One frame per turn: the world then runs no faster than this loop shows it.
        for frame in session.poll_frames(limit=1):
            x, _, z = frame.c2w[:3, 3]
            pygame.display.set_caption(f"frame {frame.index}   x {x:+.1f} m   z {z:+.1f} m")
        picture = pygame.image.frombuffer(frame.pixels.tobytes(), (info.width, info.height), "RGB")
        screen.blit(pygame.transform.smoothscale(picture.convert(screen), screen.get_size()), (0, 0))
        pygame.display.flip()
        clock.tick(info.frames_per_second)
