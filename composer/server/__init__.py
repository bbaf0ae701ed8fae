"""`compose serve`: the local target behind HTTP, in the wire format of the Scenario API.

From the inside out: `handlers` and `image_handlers` answer the calls of the API with JSON that
`wire` makes; `app` is Flask's part, which checks host, credentials and bodies; `running` is the
socket. `rendering` makes images, and is imported only where there is a base model. `testing`
injects faults, and is imported only where a fault script or a fault log is asked for.
"""
