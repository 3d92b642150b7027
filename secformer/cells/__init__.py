"""Several cells that hold one model, as a client sees them: the list, which are drained, how each of them does.

A cell is a pinned pair of parties with its dealer and its epoch. This package may import `roles` and what lies below.
Who hands work to cells, such as the gateway, stands above.
"""
