"""HTTP to a target: session, retries, rate limits, and error translation. Knows no vendor."""
