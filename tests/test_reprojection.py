"""Late rotational reprojection: what it shows, against rendered truth, and the shader against numpy."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from worldwire.camera import Intrinsics, make_c2w, rotation_from_yaw_pitch
from worldwire.errors import ImageError, MachineError
from worldwire.reprojection import Reprojector, homography, reproject

CAMERA = Intrinsics.from_fov(54, 91, 80)  # odd sizes: rows of a texture are not padded
NARROW = Intrinsics.from_fov(40, 60, 50)
rotations = st.tuples(*[st.floats(-0.6, 0.6)] * 3).map(
    lambda v: make_c2w(Rotation.from_rotvec(v).as_matrix(), (1.0, 2.0, 3.0))
)


def picture(camera: Intrinsics = CAMERA, seed: int = 0) -> np.ndarray:
    """Smooth random colours."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[: camera.height, : camera.width] / 17
    waves = [np.sin(u * a + v * b + c) for a, b, c in rng.uniform(-3, 3, (3, 3))]
    return np.stack([127.5 * wave + 127.5 for wave in waves], axis=-1).astype(np.uint8)


def turned(yaw_deg: float = 0.0, pitch_deg: float = 0.0) -> np.ndarray:
    return make_c2w(rotation_from_yaw_pitch(yaw_deg, pitch_deg), np.zeros(3))


@pytest.fixture(scope="module")
def make_reprojector():
    pytest.importorskip("moderngl", reason="the extra 'play' is not installed")

    def make(*cameras, **options):
        try:
            made.append(Reprojector(*cameras, **options))
        except MachineError as error:
            pytest.skip(f"no off-screen OpenGL: {error}")
        return made[-1]

    made: list[Reprojector] = []
    yield make
    for reprojector in made:
        reprojector.close()


@pytest.fixture(scope="module")
def shaders(make_reprojector) -> list[Reprojector]:
    return [make_reprojector(CAMERA, display, outside=(40, 50, 60)) for display in (CAMERA, NARROW)]


def test_a_still_head_sees_the_frame_itself():
    pixels, pose = picture(), turned(33, -12)
    shown = reproject(pixels, pose, pose, CAMERA)
    assert np.array_equal(shown.pixels, pixels)
    assert shown.seen.all()


def test_moving_without_turning_changes_nothing():
    pixels, there = picture(), turned(10)
    there[:3, 3] = (0.3, -0.1, 0.2)
    assert np.array_equal(reproject(pixels, turned(10), there, CAMERA).pixels, pixels)


@pytest.mark.parametrize(
    ("head", "empty"),
    [
        (turned(20), np.s_[:, -10:]),
        (turned(-20), np.s_[:, :10]),
        (turned(0, 15), np.s_[:8]),
        (turned(0, -15), np.s_[-8:]),
    ],
)
def test_what_the_frame_never_showed_is_empty(head, empty):
    shown = reproject(picture(), np.eye(4), head, CAMERA, outside=(9, 8, 7))
    assert not shown.seen[empty].any()
    assert (shown.pixels[empty] == (9, 8, 7)).all()
    assert shown.seen.mean() > 0.4


def test_a_head_that_turned_around_sees_nothing():
    """Its rays lie behind the frame's camera, where a projection alone would show the frame mirrored."""
    assert not reproject(picture(), np.eye(4), turned(180), CAMERA).seen.any()


def test_a_narrower_display_hides_small_turns():
    for head in (turned(8, 3), turned(-8, -3)):
        assert reproject(picture(), np.eye(4), head, CAMERA, NARROW).seen.all()


@given(frame=rotations, head=rotations)
def test_a_point_at_infinity_stays_on_its_ray(frame, head):
    matrix = homography(frame, head, CAMERA, NARROW)
    direction = head[:3, :3] @ (0.1, -0.2, 1.0)

    def seen_by(camera: Intrinsics, c2w: np.ndarray) -> np.ndarray:
        x, y, z = c2w[:3, :3].T @ direction
        u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        return np.array([u / camera.width, v / camera.height])

    mapped = matrix @ np.append(seen_by(NARROW, head), 1)
    assert np.allclose(mapped[:2] / mapped[2], seen_by(CAMERA, frame))


@given(frame=rotations, head=rotations)
@settings(max_examples=40)
def test_there_and_back(frame, head):
    there = homography(frame, head, CAMERA, NARROW)
    back = homography(head, frame, NARROW, CAMERA)
    assert np.allclose(there @ back, np.eye(3))


def test_against_rendered_truth():
    """A village from one place: the frame of one heading, reprojected, is the picture of another."""
    pytest.importorskip("moderngl", reason="the extra 'training' is not installed")
    from worldwire_training.data_engine.renderer import Renderer
    from worldwire_training.data_engine.scene import build_scene

    try:
        renderer = Renderer(192, 320)
    except MachineError as error:
        pytest.skip(f"no EGL: {error}")
    start, head = turned(10, 2), turned(24, -3)
    for pose in (start, head):
        pose[1, 3] = -1.6
    frame, truth = renderer.render(build_scene(1_000_003), np.stack([start, head]))
    renderer.close()
    shown = reproject(frame, start, head, renderer.intrinsics)

    def psnr_db(pixels: np.ndarray) -> float:
        error = (pixels.astype(float) - truth)[shown.seen]
        return float(10 * np.log10(255**2 / (error**2).mean()))

    assert shown.seen.mean() > 0.7
    assert psnr_db(frame) < 15
    assert psnr_db(shown.pixels) > 30


@settings(max_examples=50)
@given(frame=rotations, head=rotations, seed=st.integers(0, 99))
def test_the_shader_is_the_reference(shaders, frame, head, seed):
    pixels = picture(seed=seed)
    for shader in shaders:
        expected = reproject(pixels, frame, head, CAMERA, shader.display, outside=(40, 50, 60))
        shown = shader(pixels, frame, head)
        assert (shown.seen != expected.seen).mean() < 0.002  # rays that graze an edge
        both = shown.seen & expected.seen
        difference = np.abs(shown.pixels.astype(int) - expected.pixels)
        assert difference[both].sum() <= 0.5 * 3 * both.sum()  # half a step of 255 on average
        assert difference[both].max(initial=0) <= 3
        assert (shown.pixels[~shown.seen] == (40, 50, 60)).all()


def test_the_shader_shows_a_still_head_the_frame_itself(make_reprojector):
    pixels, pose = picture(), turned(33, -12)
    shown = make_reprojector(CAMERA)(pixels, pose, pose)
    assert np.array_equal(shown.pixels, pixels)
    assert shown.seen.all()


def test_a_window_gets_its_lowest_row_first(make_reprojector):
    moderngl = pytest.importorskip("moderngl")
    make_reprojector(CAMERA)  # skips where there is no OpenGL
    options = {"backend": "egl"} if sys.platform == "linux" else {}
    context, pixels = moderngl.create_standalone_context(**options), picture()
    reprojector = Reprojector(CAMERA, context=context)
    window = context.framebuffer([context.renderbuffer((CAMERA.width, CAMERA.height), 3)])
    window.use()
    reprojector.upload(pixels)
    reprojector.draw(np.eye(4), np.eye(4))
    read = np.frombuffer(window.read(alignment=1), np.uint8).reshape(pixels.shape)
    assert np.array_equal(read[::-1], pixels)
    reprojector.close()
    context.release()


def test_a_frame_of_another_size_is_refused(make_reprojector):
    with pytest.raises(ImageError, match="does not fit"):
        reproject(picture(), np.eye(4), np.eye(4), NARROW)
    with pytest.raises(ImageError, match="does not fit"):
        make_reprojector(NARROW).upload(picture())
