"""Files: atomic writes, outputs for the user, the state folder, reading a repository, schemas.

Every other package may use this one; it knows nothing of recipes, locks or weights.
"""
