"""The HTTP side of a target: session, retries, rate limits, error translation; no vendor."""
