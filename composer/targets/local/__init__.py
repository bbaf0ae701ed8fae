"""The target `local`, which composes real LoRA weights on this machine.

`kind` opens it, `service` has the verbs of a target, `library` is a folder of LoRA files as models,
`store` keeps compositions and jobs in SQLite, `worker` carries jobs out.
"""
