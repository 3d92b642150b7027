"""Messages between roles: frames (`wire`), channels within a process (`channel`) and over sockets (`tcp`).

May import errors and meter. Sockets are used in `tcp` only.
"""
