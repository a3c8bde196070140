"""Prompts that name a mood and a light, in many words. Free of torch."""

from __future__ import annotations

import numpy as np

_MOODS = {
    "neutral": ("", "calm ", "young ", "old ", "friendly-looking "),
    "happy": ("happy ", "cheerful ", "smiling ", "glad "),
    "sad": ("sad ", "gloomy ", "tearful ", "grieving "),
}
_PEOPLE = ("person", "woman", "man", "someone", "portrait", "singer", "teacher", "child")
_TALKS = (" talks", " speaks", " tells a story", " talks to the camera", " explains", " sings")
_AFTER = {
    "neutral": ("", " slowly", " and looks on"),
    "happy": (" and smiles", " happily"),
    "sad": (" sadly", " and weeps"),
}
_LIGHTS = {
    "white": ("", ".", " in a room.", " in daylight."),
    "red": (" in red light.", ", red light"),
    "green": (" in green light.", ", green light"),
    "blue": (" in blue light.", ", blue light"),
    "golden": (" in golden light.", ", golden light"),
}


def prompt(random: np.random.Generator, mood: str, light: str) -> str:
    """One way to ask for a mood (of heads.MOODS) in a light (of heads.LIGHTS)."""
    before, after = ("", _pick(random, _AFTER[mood])) if random.uniform() < 0.4 else (_pick(random, _MOODS[mood]), "")
    article = _pick(random, ("A ", "The ", "a "))
    return article + before + _pick(random, _PEOPLE) + _pick(random, _TALKS) + after + _pick(random, _LIGHTS[light])


def _pick(random: np.random.Generator, words: tuple[str, ...]) -> str:
    return str(random.choice(words))
