"""The engine's door on HTTP: what `compose serve` runs, in the wire format of the Scenario API.

From the inside out: `calls` answers the calls of the API (`models`, `jobs`) with JSON that
`wire` makes; `app` is Flask's part, which checks host, credentials and bodies; `door` counts
and logs the calls, and carries a fault script out; `running` is the socket.
"""
