"""Batch jobs: a file of texts in, a file of answers out, by many cells, on Ray in the client's own domain.

The driver (`driver`) reads rows (`sources`), hands them to cells (`crew`, `ray_crew`), and keeps finished chunks as
part files (`folder`), so that a job that was stopped goes on. `secformer batch` starts it. May import `cells`,
`gateway` and what lies below; only `views` and `commands` may import it.
"""
