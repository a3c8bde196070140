"""Trains the tiny avatar: weights small enough for git that really make a portrait talk."""
