"""Copies by Hopper's engine, by the names that Triton 3.8 gave them; earlier versions had others."""

from __future__ import annotations

from triton.experimental.gluon.language.nvidia.hopper import tma

async_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
async_store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
