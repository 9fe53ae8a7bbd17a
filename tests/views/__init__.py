"""Views of clips."""
