"""HTTP to a target: session, retries, limits, and errors translated to ours. Knows no vendor."""
