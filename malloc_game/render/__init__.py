"""Pictures of a mapping: alternate memory over logical time.

`text` draws it in characters, `image` with matplotlib; `layout` is what both share.
"""

from malloc_game.render.image import render_image, save_image
from malloc_game.render.text import render_text

__all__ = ["render_image", "render_text", "save_image"]
