"""Views of a clip: as it was recorded, or in noise, in a room, over a telephone, cut, changed."""
