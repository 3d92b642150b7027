"""Messages between roles: frames (`wire`), channels within a process (`channel`) and over sockets (`tcp`, `tls`).

May import errors and meter. Sockets are used in `tcp` and `tls` only.
"""
