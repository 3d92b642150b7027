"""Generation: what a client does with plaintext of its own, before and between the steps of a decoder.

What lives here: a prompt as token ids (`prompts`), the choice of the next token from its logits (`sampling`), tokens
that are guessed ahead (`drafting`), and tokens as text, up to where it ends (`stops`). Nothing here is shared, sent or
computed by parties. May import `secformer.models.data` and `secformer.models.families.config`; must not know sessions,
shares or any model family.
"""
