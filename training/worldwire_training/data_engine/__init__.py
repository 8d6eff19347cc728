"""Procedural 3-D worlds, rendered headless: scenes, exploring players, episodes with exact ground truth."""

from worldwire_training.data_engine.episode import Episode, record_episode
from worldwire_training.data_engine.prompts import prompt_vocabulary
from worldwire_training.data_engine.renderer import Renderer
from worldwire_training.data_engine.scene import Scene, build_scene

__all__ = ["Episode", "Renderer", "Scene", "build_scene", "prompt_vocabulary", "record_episode"]
