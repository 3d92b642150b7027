"""Every error that the engine raises: each says what holds, what came and what to do."""


class SecformerError(Exception):
    """Root of all errors of this package."""


class RangeError(SecformerError, ValueError):
    """A value or a width that the fixed-point words cannot hold."""


class Untrusted(RangeError):
    """An answer that the guard does not vouch for: values left the ranges that the computation is right in."""


class ShapeError(SecformerError, ValueError):
    """Shapes or types of operands that do not fit together."""


class SettingsError(SecformerError, ValueError):
    """An unknown or impossible setting: recipe, backend, option."""


class BackendUnavailable(SecformerError, RuntimeError):
    """The asked-for array library or device is not there."""


class OutOfMemory(SecformerError, MemoryError):
    """The device has less memory than a run needs."""


class NotRecordable(SecformerError, RuntimeError):
    """A run that cannot be recorded as a CUDA graph. It runs launch by launch instead."""


class ModelError(SecformerError, ValueError):
    """A model folder, config, tokenizer or tensor that cannot be used."""


class InputError(SecformerError, ValueError):
    """Texts or token ids that the model cannot take."""


class TooLong(InputError):
    """A text of more tokens than the model takes."""


class ProtocolError(SecformerError, RuntimeError):
    """The two parties, or a party and the dealer, no longer run one protocol."""


class Desync(ProtocolError):
    """The peers run different programs: tells both sides' story."""


class PeerLost(ProtocolError, ConnectionError):
    """The peer closed the connection or did not answer before the deadline."""


class PeerEnded(PeerLost):
    """The peer closed the connection in order: it has said all that it had to say."""


class ReusedRandomness(ProtocolError):
    """A correlation was asked for a second time; masks burn when touched."""


class AuthError(ProtocolError):
    """A peer could not prove the role that it must have."""


class StoreError(ProtocolError):
    """A store of correlated randomness that cannot be read or written."""
