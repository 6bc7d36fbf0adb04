"""Pictures of a mapping: alternate memory over logical time, as text or as an image."""

from malloc_game.render.drawing import render_image, render_text, save_image

__all__ = ["render_image", "render_text", "save_image"]
