"""The sessions of the engine: one party of two (`secure`), the float64 twin (`plain`), the plan recorder (`recorder`).

Each supplies the primitives for its kind of data; the verbs and their bookkeeping are inherited from `Session`. May
import everything below; no session imports another.
"""
