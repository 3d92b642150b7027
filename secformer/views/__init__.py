"""What the commands show: rich tables for people, plain dicts for `--json`, and the page of `secformer compare --html`.

One file for each kind of result. Everything here turns a finished result into something to print: it prints nothing and
computes nothing on shares. It may import `mpc`, `protocols`, `models` and the roles' result types; only `commands` may
import it.
"""
