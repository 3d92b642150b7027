"""Runs: a folder and texts in, secure answers out; in one process, or split between the owner, parties and clients.

What lives here: a run's settings and its preparation (`options`, `prepare`), the loop that every client runs
(`gather`), the in-process model (`local`), a model for served parties (`public`, `provisioning`, `served`), answers
(`output`), text token by token (`decoding`, `generate`, `conversation`, with what drafts tokens: `drafters`,
`draft_model`), and what is built on them (`check`, `comparison`, `networks`, `progress`). May import
`secformer.models.ranges` and what that may import.
"""
