"""Faults on purpose: what `compose serve --faults` does to requests and answers, for tests."""
