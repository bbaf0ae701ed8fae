"""The embedded engine: the target `local`, which composes real LoRA weights on this machine.

`library` (a folder of LoRA files as models), `store` (compositions and jobs in SQLite), `worker`
(carries jobs out) and `service` (the verbs of a target, `Engine`).
"""
