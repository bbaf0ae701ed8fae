"""Renderers: they make the images of previews. The kinds by name are in `registry`."""
