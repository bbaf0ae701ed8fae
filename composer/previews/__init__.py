"""Previews as values: images of a mix, where they stand in a grid, and what came of them. Pure."""
