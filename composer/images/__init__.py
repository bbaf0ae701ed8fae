"""Images for people: bytes from elsewhere made safe, and contact sheets. Needs the extra `preview`.

Nothing but this package imports Pillow.
"""
