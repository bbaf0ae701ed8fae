"""The embedded engine: the target `local`, which composes real LoRA weights on this machine.

From the ground up: `lora` (file formats and arithmetic), `library` (a folder of LoRAs) and
`store` (compositions and jobs in SQLite), `making` (one composed file), `worker` (carries jobs
out), `service` (the verbs of a target), `server` (the same over HTTP). The command line makes an
`Engine` from `composer.engine.service`; beside it, `merging` needs no store, and `delivery` puts
files where a user wants them.
"""
