"""Where models live: the protocol `base.Target`, and the targets that implement it."""
