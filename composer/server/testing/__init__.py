"""Fault injection for tests: what `compose serve --fault-script` does to requests and answers."""
