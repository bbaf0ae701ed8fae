"""The target over HTTP: the Scenario API, or anything that speaks as it does.

`service.Scenario` is the door; nothing else in the house imports `requests`. `address` and
`credentials` are plain values, for those who must name a target without reaching it.
"""
