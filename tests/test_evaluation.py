"""The evaluation judges an oracle, a frozen picture and a reversed world as it should, from pixels."""

import argparse
import itertools
import json
from dataclasses import replace

import fakes
import numpy as np
import pytest

pytest.importorskip("moderngl", reason="the extra 'training' is not installed")

from worldwire import Frame, Inputs, MotionModel, PlayerPose
from worldwire.camera import invert
from worldwire.errors import ConfigError
from worldwire_training.commands.evaluate import configure
from worldwire_training.data_engine.solids import Solids
from worldwire_training.evaluation import pixels, statistics
from worldwire_training.evaluation.album import Album
from worldwire_training.evaluation.direction import COMMANDS, plan_trials
from worldwire_training.evaluation.film import film
from worldwire_training.evaluation.pictures import draw_strip, write_gif
from worldwire_training.evaluation.places import find_open_place
from worldwire_training.evaluation.plan import QUICK
from worldwire_training.evaluation.play import Player
from worldwire_training.evaluation.report import Report
from worldwire_training.evaluation.run import METRICS, check_metrics, evaluate, header
from worldwire_training.evaluation.setting import Setting
from worldwire_training.evaluation.stages import CLASSES
from worldwire_training.evaluation.walks import (
    LOOK_AWAY_FRAMES,
    Walk,
    hold,
    integrate,
    look_away_script,
    mirrored,
    moving_part,
    return_script,
    script,
    turn_script,
)

MOTION = MotionModel()
SEEDS = range(1_000_000, 1_000_004)
GROUND = dict(zip(CLASSES, [(60, 150, 60), (150, 60, 60), (60, 60, 170), (150, 150, 40)], strict=True))
PLAN = replace(QUICK, endurance_s=(2, 60), revisit_scenes={5: 2, 15: 1}, endurance_scenes=1)


class ToyStage:
    """A checkered plane whose colour says its class."""

    def __init__(self, studio, seed, kind, time_of_day):
        drawn = CLASSES[seed % len(CLASSES)]
        self.seed, self.studio = seed, studio
        self.kind, self.time_of_day = kind or drawn[0], time_of_day or drawn[1]

    def prompt(self, view):
        return f"{self.kind} {self.time_of_day}"

    def wander(self, frames, view):
        moves = hold(frames, "forward", yaw_deg=-1.5 * frames)
        return self.walk(self.start([]), script(hold(20), moves)[:frames], view)

    def start(self, reach=()):
        return PlayerPose(x_m=self.seed % 7, z_m=self.seed % 5, yaw_deg=self.seed % 360 - 180)

    def walk(self, start, inputs, view):
        players = integrate(MOTION, start, inputs)
        return Walk(
            view, tuple(inputs), np.stack([MOTION.camera(player, view) for player in players]), players
        )

    def render(self, walk, frames):
        pictures = [self.picture(walk.c2w[frame]) for frame in frames]
        for frame, picture in zip(frames, pictures, strict=True):
            self.studio.known[picture.tobytes()] = (self, walk.c2w[frame])
        return np.stack(pictures)

    def shared(self, walk, frame):
        return np.ones((fakes.INFO.height, fakes.INFO.width), bool)

    def picture(self, c2w):
        return fakes.render(fakes.INFO, c2w, GROUND[self.kind, self.time_of_day])


class ToyStudio:
    motion = MOTION

    def __init__(self):
        self.known = {}

    def stage(self, seed, kind=None, time_of_day=None):
        return ToyStage(self, seed, kind, time_of_day)


class OracleSession:
    """Shows the truth of what it is told; `bend` spoils inputs, `frozen` shows the start for ever."""

    def __init__(self, studio, memory=True, frozen=False, bend=lambda told: told, frames_per_step=8):
        self.studio, self.memory, self.frozen, self.bend = studio, memory, frozen, bend
        self.frames_per_step = frames_per_step

    def reset(self, prompt=None, image=None, seed=0, view=None, conditioning="both"):
        self.index, self.view, self.conditioning = 0, view or "first", conditioning
        if image is None:
            kind, time_of_day = prompt.split()
            self.stage, self.origin = ToyStage(self.studio, 3, kind, time_of_day), np.eye(4)
        else:
            self.stage, self.origin = self.studio.known[image.tobytes()]
        self.c2w = self.origin
        return self._frame()

    def step(self, inputs):
        assert len(inputs) == self.frames_per_step
        return [self._advance(self.bend(told)) for told in inputs]

    def save(self):
        return repr((self.index, self.c2w.tolist())).encode()

    def restore(self, state):
        self.index, c2w = eval(state)
        self.c2w = np.array(c2w)

    def close(self):
        self.closed = True

    def _advance(self, told):
        assert (told.c2w is None) or self.conditioning != "keys"
        assert not told.keys or self.conditioning != "poses"
        self.index += 1
        if told.c2w is None:
            player = MOTION.advance(MOTION.player(self.c2w, self.view), told)
            self.c2w = MOTION.camera(player, self.view)
        else:
            self.c2w = self.origin @ told.c2w
        return self._frame()

    def _frame(self):
        picture = self.stage.picture(self.origin if self.frozen else self.c2w)
        if not self.memory:
            picture = picture // 2
        return Frame(self.index, picture, invert(self.origin) @ self.c2w)


class OracleWorld:
    def __init__(self, studio, **options):
        self.studio, self.options = studio, options
        self.info = replace(fakes.INFO, extra={"steps": 3, "clip_plan": {"new": 2}, "attention": "cached"})

    def session(self, *, memory=True):
        return OracleSession(self.studio, memory, **self.options)


def evaluated(tmp_path, metrics=tuple(METRICS), **options):
    studio = ToyStudio()
    world = OracleWorld(studio, **options)
    report = Report(tmp_path / "eval.json", header(world, SEEDS, PLAN, metrics, {"commit": "c"}))
    album = evaluate(world, studio, SEEDS, PLAN, report=report, metrics=metrics)
    return json.loads((tmp_path / "eval.json").read_text()), album


def test_an_oracle_scores_full_marks_under_every_name_that_others_read(tmp_path):
    found, _ = evaluated(tmp_path)
    best = pixels.IDENTICAL_PSNR_DB
    assert found["psnr_db"] == {"0.5": best, "2": best, "5": best}
    assert found["ssim"] == {"0.5": 1, "2": 1, "5": 1}
    assert all(found["psnr_freeze_db"][second] < 40 for second in ("0.5", "2", "5"))
    assert all(found["psnr_wrong_actions_db"][second] < 40 for second in ("0.5", "2", "5"))
    full = {"both": 1, "keys": 1, "poses": 1, "third_person": 1}
    assert found["turn_direction_accuracy"] == found["step_direction_accuracy"] == full
    for action in ("turn", "step"):
        assert found[f"{action}_direction_accuracy_where_shared"] == full
    assert found["prompt_accuracy"] == found["prompt_accuracy_of_truth"] == 1
    assert found["revisit_psnr_db"]["memory"] == {"5": best, "15": best}
    assert found["revisit_psnr_db"]["no_memory"]["5"] < 20
    assert found["sharpness_ratio_60s"] == found["contrast_ratio_60s"] == 1
    assert (found["scenes"], found["steps"], found["preset"], found["commit"]) == (4, 3, "fake", "c")
    assert found["held_out"]
    assert found["unfinished"] == []


def test_planned_and_generated_frames_agree(tmp_path):
    studio = ToyStudio()
    world = OracleWorld(studio)
    for name, metric in METRICS.items():
        report = Report(None, header(world, SEEDS, PLAN, [name], {}))
        evaluate(world, studio, SEEDS, PLAN, report=report, metrics=[name])
        planned = metric.planned_frames(Setting(Player(world), studio, tuple(SEEDS), PLAN, Album()))
        assert report.values["generated_frames"] == planned, name


def test_a_frozen_world_is_as_good_as_freezing_and_only_obeys_none(tmp_path):
    found, _ = evaluated(tmp_path, ("quality", "turns", "steps"), frozen=True)
    assert found["psnr_db"] == found["psnr_freeze_db"]
    for action in ("turn", "step"):
        seen = found[f"{action}_direction_seen"]["both"]
        assert all(row["none"] == sum(row.values()) for row in seen.values())
        assert found[f"{action}_direction_accuracy_where_shared"]["both"] == pytest.approx(1 / 3, abs=0.01)


def test_trials_whose_command_leads_out_of_sight_are_left_to_the_first_judge(tmp_path, monkeypatch):
    def shared(stage, walk, frame):
        return np.full((fakes.INFO.height, fakes.INFO.width), "right" not in walk.inputs[-1].keys)

    monkeypatch.setattr(ToyStage, "shared", shared)
    found, _ = evaluated(tmp_path, ("steps",))
    counts = found["counts"]
    assert counts["step_trials"]["both"] == 3
    assert counts["step_trials_where_shared"]["both"] == 2
    assert found["step_direction_accuracy_where_shared"]["both"] == 1


def test_the_second_judge_looks_only_where_it_may():
    picture = np.full((4, 4, 3), 100, np.uint8)
    near, far = picture.copy(), picture.copy()
    near[:2] = 255
    far[:, :2] = 120
    everywhere, below, right = np.ones((4, 4), bool), np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    below[2:], right[:, 2:] = True, True
    assert pixels.nearest_where(picture, [near, far], [everywhere, everywhere]) == 1
    assert pixels.nearest_where(picture, [near, far], [below, everywhere]) == 0
    assert pixels.nearest_where(picture, [near, far], [everywhere, right]) == 1


def reverse(told):
    """What a world with left and right exchanged makes of the inputs."""
    swapped = {"left": "right", "right": "left"}
    flip = np.diag([-1.0, 1, 1, 1])
    pose = None if told.c2w is None else flip @ told.c2w @ flip
    return Inputs(frozenset(swapped.get(key, key) for key in told.keys), -told.yaw_deg, told.pitch_deg, pose)


def test_a_mirrored_world_is_always_wrong_about_left_and_right(tmp_path):
    found, _ = evaluated(tmp_path, ("turns", "steps"), bend=reverse)
    for action, mode in itertools.product(("turn", "step"), ("both", "keys", "poses", "third_person")):
        seen = found[f"{action}_direction_seen"][mode]
        assert seen["left"]["left"] == seen["right"]["right"] == 0


def test_a_plan_of_long_clips_sees_the_same_frames(tmp_path):
    found, _ = evaluated(tmp_path, ("quality", "turns", "revisit"), frames_per_step=40)
    best = pixels.IDENTICAL_PSNR_DB
    assert found["psnr_db"]["2"] == best
    assert found["turn_direction_accuracy"]["keys"] == 1
    assert found["revisit_psnr_db"]["memory"] == {"5": best, "15": best}


def test_a_stopped_run_leaves_what_it_had(tmp_path, monkeypatch):
    def stop(setting):
        raise KeyboardInterrupt

    monkeypatch.setitem(METRICS, "steps", replace(METRICS["steps"], measure=stop))
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path, ("turns", "steps"))
    left = json.loads((tmp_path / "eval.json").read_text())
    assert "turn_direction_accuracy" in left
    assert "step_direction_accuracy" not in left
    assert left["unfinished"] == ["steps"]
    assert not list(tmp_path.glob("*.partial"))


def test_unknown_metrics_are_named():
    assert check_metrics(["steps", "turns"]) == ("turns", "steps")
    assert check_metrics([]) == ()
    with pytest.raises(ConfigError, match="got: blur"):
        check_metrics(["turns", "blur"])


def test_trials_draw_each_command_equally_often_and_change_with_every_round():
    trials = plan_trials({"both": 96}, scenes=32)
    for scene in range(32):
        assert {trial.command for trial in trials if trial.scene == scene} == set(COMMANDS)
    assert [sum(trial.command == command for trial in trials) for command in COMMANDS] == [32, 32, 32]


def test_pictures_are_drawn(tmp_path):
    _, album = evaluated(tmp_path, ("quality", "endurance"))
    assert "third person" in album.short
    draw_strip(album.short, tmp_path / "strip.png")
    draw_strip(album.long, tmp_path / "long.png")
    studio = ToyStudio()
    pictures, inputs = film(OracleWorld(studio), studio, SEEDS[0])
    write_gif(pictures, inputs, 16.0, tmp_path / "walk.gif")
    for name in ("strip.png", "long.png", "walk.gif"):
        assert (tmp_path / name).stat().st_size > 1000


# ---------------------------------------------------------------------------------------------- parts


def test_pixel_measures():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    off_by_ten = np.where(truth > 127, truth - 10, truth + 10).astype(np.uint8)
    assert pixels.psnr_db(off_by_ten, truth) == pytest.approx(20 * np.log10(255 / 10), abs=1e-3)
    assert pixels.ssim(truth, truth) == pytest.approx(1)
    flat = np.full_like(truth, 90)
    assert pixels.contrast(flat) == pytest.approx(0, abs=1e-3)
    assert pixels.sharpness(flat) == pytest.approx(0, abs=1e-3)
    assert pixels.sharpness(pixels.shrink(truth, 8, 12)) < pixels.sharpness(truth)
    assert pixels.nearest(truth, [flat, off_by_ten]) == 1


def test_intervals_hold_the_mean_and_shrink_with_more_scenes():
    few, many = [1.0, 2.0, 3.0], [1.0, 2.0, 3.0] * 20
    low, high = statistics.mean_interval(few)
    assert low < 2 < high
    assert statistics.mean_interval(many)[1] < high
    assert statistics.share_interval([True] * 20)[0] == pytest.approx(0.839, abs=1e-3)


def test_scripts_turn_as_far_as_they_say():
    assert sum(told.yaw_deg for told in turn_script("left")) == pytest.approx(-24)
    away = look_away_script(400)
    yaw = np.cumsum([told.yaw_deg for told in away])
    assert len(away) == 401
    assert np.abs(yaw[LOOK_AWAY_FRAMES:] - 180).max() <= 40 + 1e-9
    assert sum(told.yaw_deg for told in return_script(away)) == pytest.approx(360)
    assert look_away_script(200) == away[:201]


def test_a_moving_part_has_moved_at_every_scored_time_and_starts_neutral():
    stage = ToyStage(ToyStudio(), 1_000_001, None, None)
    part = moving_part(stage.wander(200, "first"), (8, 32, 80))
    assert len(part) == 81
    assert part.inputs[0] == Inputs()
    assert min(part.movement(frame) for frame in (8, 32, 80)) >= 1


def test_mirrored_inputs_lead_to_the_other_side():
    walk = ToyStage(ToyStudio(), 0, None, None).walk(
        PlayerPose(yaw_deg=70), script(hold(16, "right")), "third"
    )
    wrong = mirrored(walk, MOTION)
    assert wrong.session_c2w()[-1, 0, 3] == pytest.approx(-walk.session_c2w()[-1, 0, 3])


def test_open_places_keep_the_ways_free_and_stay_on_this_side_of_walls():
    wall = Solids(np.zeros((0, 3)), np.array([[1.0, 0.0, 0.1, 20.0, 0.0]]), boundary_m=20.0)
    reach = [(0.0, 4.0), (2.0, 0.0), (-2.0, 0.0)]
    for seed in range(8):
        x, _, yaw_deg = find_open_place(wall, np.array([[-0.5, 0.0], [-4.0, 2.0]]), reach, seed)
        assert x < 1
        for right, ahead in reach:
            yaw = np.radians(yaw_deg)
            assert x + right * np.cos(yaw) + ahead * np.sin(yaw) < 0.9
    cell = Solids(np.zeros((0, 3)), np.zeros((0, 5)), boundary_m=1.0)
    assert find_open_place(cell, np.zeros((1, 2)), reach, 0) is None


def test_the_command_line_takes_only_sensible_seeds(capsys):
    parser = argparse.ArgumentParser()
    configure(parser)
    assert parser.parse_args([]).scene_seeds == range(1_000_000, 1_000_032)
    for wrong in ("5", "9:3", "a:b"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--scene-seeds", wrong])
    assert "two growing numbers" in capsys.readouterr().err
