"""Files, whoever's they are: safe writing, room on the disk, the state folder, shipped schemas.

Every other package may use this one; it knows nothing of recipes, locks or weights.
"""
