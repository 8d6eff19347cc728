"""The viewer's files and pictures: mp4, contact sheet, seed images, HUD."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import INFO, SceneWorld

from worldwire import Inputs
from worldwire.errors import ConnectionLostError, ImageError, MachineError
from worldwire.viewer.link import Arrived, Lost, Opened, Refused, Sent, Start, Started
from worldwire.viewer.state import Phase, ViewerState

pygame = pytest.importorskip("pygame", reason="the extra 'play' is not installed")
av = pytest.importorskip("av", reason="the extra 'play' is not installed")

from worldwire.viewer.controls import HELP_LINES  # noqa: E402
from worldwire.viewer.hud import Card, Hud, HudModel, draw_key_strip  # noqa: E402
from worldwire.viewer.images import cover, seed_image, to_pixels, to_surface  # noqa: E402
from worldwire.viewer.recording import (  # noqa: E402
    Recorder,
    SheetPicture,
    contact_sheet,
    new_path,
    pick_evenly,
)


def walked_state(frames: int = 40) -> ViewerState:
    session = SceneWorld().session()
    state = ViewerState(Start(image="meadow"))
    state.handle(Opened(INFO), 0.0)
    state.handle(Started(Start(image="meadow"), session.reset()), 0.0)
    now_s = 0.0
    while session._index < frames:
        state.handle(Arrived(tuple(session.step(Inputs({"forward"}, yaw_deg=1.0)))), now_s)
        for _ in range(60):
            now_s += 1 / 60
            state.advance(now_s)
    return state


class TestRecorder:
    @pytest.mark.parametrize("size", [(48, 80), (33, 55)])
    def test_writes_a_video_that_plays(self, tmp_path, size):
        path = tmp_path / "walk.mp4"
        rng = np.random.default_rng(0)
        with Recorder(path, 16.0, scale=2) as recorder:
            for level in range(20):
                picture = np.full((*size, 3), 10 * level, np.uint8)
                picture[: size[0] // 2] = rng.integers(0, 40, 3)
                recorder.add(picture)
        with av.open(str(path)) as video:
            stream = video.streams.video[0]
            frames = [item.to_ndarray(format="rgb24") for item in video.decode(stream)]
            assert stream.codec_context.name == "h264"
            assert stream.average_rate == 16
        assert len(frames) == recorder.frames == 20
        assert frames[0].shape[0] in (2 * size[0], 2 * size[0] + 1)
        assert abs(float(frames[10][-8:].mean()) - 100) < 8

    def test_nothing_recorded_leaves_no_file(self, tmp_path):
        with Recorder(tmp_path / "none.mp4", 16.0):
            pass
        assert not (tmp_path / "none.mp4").exists()

    def test_what_cannot_be_a_video_is_said_so(self, tmp_path):
        refused = pytest.raises(MachineError, match=r"cannot write a video as .*png.*ends in \.mp4")
        with refused, Recorder(tmp_path / "walk.png", 16.0) as recorder:
            recorder.add(np.zeros((48, 80, 3), np.uint8))

    def test_paths_are_new(self, tmp_path):
        first = new_path(".png", tmp_path / "recordings")
        first.touch()
        assert new_path(".png", tmp_path / "recordings") != first


class TestContactSheet:
    def test_picks_spread_evenly_with_both_ends(self):
        assert pick_evenly(100, 5) == [0, 25, 50, 74, 99]
        assert pick_evenly(3, 30) == [0, 1, 2]

    def test_has_every_picture_and_its_keys(self):
        pictures = []
        for level in range(8):
            surface = to_surface(np.full((96, 160, 3), 30 * level, np.uint8))
            draw_key_strip(surface, frozenset({"forward"}), 3.0, 0.0)
            pictures.append(SheetPicture(surface, f"{level} s forward"))
        sheet = to_pixels(contact_sheet(pictures, columns=4))
        assert sheet.shape[0] > 2 * 96
        assert sheet.shape[1] > 4 * 160
        accent = (sheet == (98, 208, 170)).all(-1)
        assert accent.sum() > 8 * 30  # a held key and an arrow in each picture


class TestSeedImages:
    def test_names_pass_and_files_are_fitted(self, tmp_path, caplog):
        assert seed_image(None, INFO) is None
        assert seed_image("desert", INFO) == "desert"
        picture = np.zeros((100, 300, 3), np.uint8)
        picture[:, 100:200, 0] = 255
        pygame.image.save(to_surface(picture), tmp_path / "wide.png")
        with caplog.at_level("INFO"):
            pixels = seed_image(str(tmp_path / "wide.png"), INFO)
        assert pixels.shape == (INFO.height, INFO.width, 3)
        assert pixels[:, INFO.width // 2, 0].min() > 250  # the middle is kept
        assert "scaled and cut" in caplog.text

    def test_a_fitting_picture_is_not_touched(self):
        pixels = np.random.default_rng(0).integers(0, 255, (INFO.height, INFO.width, 3), np.uint8)
        assert np.array_equal(cover(to_surface(pixels), INFO.height, INFO.width), pixels)

    def test_unknown_names_and_corrupt_files(self, tmp_path):
        with pytest.raises(ImageError, match="meadow, desert, dusk"):
            seed_image("ocean", INFO)
        (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
        with pytest.raises(ImageError, match="cannot be read"):
            seed_image(str(tmp_path / "broken.png"), INFO)


class TestState:
    def test_a_walk_is_shown_with_its_pose_memory_and_time(self):
        state = walked_state(40)
        assert state.phase is Phase.PLAYING
        assert state.frame.index == 40
        assert state.world_seconds == 2.5
        assert state.position_m[2] > 4
        assert state.yaw_pitch_deg[0] == pytest.approx(40)
        assert [slot.age_s for slot in state.memory] == [2.5, 1.75]
        assert all(slot.thumbnail is not None for slot in state.memory)

    def test_latency_counts_when_the_frame_is_shown(self):
        state = ViewerState(Start())
        session = SceneWorld().session()
        state.handle(Opened(INFO), 0.0)
        state.handle(Started(Start(), session.reset()), 0.0)
        state.advance(0.0)
        state.handle(Sent(7, 1.0), 1.0)
        (first, *_) = session.step(Inputs({"forward"}))
        state.handle(Arrived((replace(first, ack=7),)), 1.4)
        state.advance(1.5)
        assert state.latency.last_ms == pytest.approx(500)

    def test_nothing_is_shown_while_paused(self):
        state = walked_state(8)
        state.set_paused(True)
        state.handle(Arrived((state.frame,)), 100.0)
        assert state.advance(200.0) == []
        state.set_paused(False)
        assert len(state.advance(300.0)) == 1

    def test_a_refused_start_keeps_the_walk_and_a_lost_server_does_not(self):
        state = walked_state(8)
        state.begin(Start(image="ocean"))
        state.handle(Refused(ImageError("unknown seed image")), 10.0)
        assert state.phase is Phase.PLAYING
        assert "unknown seed image" in state.toast_text(10.1)
        state.handle(Lost(ConnectionLostError("gone")), 11.0)
        assert state.phase is Phase.LOST

    def test_next_image_and_view_go_round(self):
        state = walked_state(8)
        assert state.next_image().image == "desert"
        state.start = Start(image="dusk", prompt="old words")
        assert state.next_image() == Start(image="meadow")

    def test_a_seed_image_brings_its_own_view_and_sentence(self):
        state = walked_state(8)
        state.start = Start(image="dusk")
        assert (state.view, state.sentence) == ("third", "a dusk")
        assert state.other_view() == Start(image="meadow", view="first")
        state.start = Start(image="dusk", prompt="old words", view="first")
        assert (state.view, state.sentence) == ("first", "old words")
        state.start = Start()
        assert (state.view, state.sentence) == ("first", "a meadow")
        assert state.other_view() == Start(view="third")

    def test_a_world_that_tells_nothing_of_its_seed_images_is_shown_by_their_names(self):
        state = walked_state(8)
        state.info = replace(state.info, extra={"seeds": ["meadow"]})
        state.start = Start(image="dusk")
        assert (state.view, state.sentence) == ("first", "dusk")


class TestHud:
    @pytest.mark.parametrize("size", [(960, 576), (160, 96)])
    def test_draws_over_the_picture(self, size):
        state = walked_state(40)
        surface = pygame.Surface(size)
        Hud(surface).draw(
            HudModel(
                latency_ms=640.0,
                keys=frozenset({"forward"}),
                memory=state.memory,
                prompt="a village " * 40,
                badges=(("REC 0:01", (240, 90, 90)),),
                toast="saved",
            )
        )
        drawn = to_pixels(surface)
        height, width = drawn.shape[:2]
        quarters = [
            drawn[: height // 2, : width // 2],
            drawn[height // 2 :, : width // 2],
            drawn[height // 2 :, width // 2 :],
        ]
        assert all(quarter.std() > 5 for quarter in quarters)

    def test_a_held_key_is_lit(self):
        def lit(keys: frozenset[str]) -> int:
            surface = pygame.Surface((960, 576))
            Hud(surface).draw(HudModel(keys=keys))
            return int((to_pixels(surface)[300:, :200] == (98, 208, 170)).all(-1).sum())

        assert lit(frozenset()) == 0
        assert lit(frozenset({"forward", "left"})) > 1.8 * lit(frozenset({"forward"})) > 500

    def test_cards_fit_long_lines(self):
        surface = pygame.Surface((480, 288))
        Hud(surface).draw_card(Card("The server is gone", ("x" * 500,), HELP_LINES, "Enter", spin=0.3))
        assert to_pixels(surface).std() > 5
