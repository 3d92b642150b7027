"""Studies of protocols that the engine does not have. They may import the engine; nothing of the package imports them,
and no wheel has them."""
