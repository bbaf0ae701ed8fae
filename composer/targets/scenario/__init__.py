"""The target `scenario`: the Scenario API over HTTP, or a server that offers the same API.

`kind` names and opens it, `service.Scenario` has the verbs of a target, `wire` reads and writes
JSON. `kind` and `credentials` do without `requests`.
"""
