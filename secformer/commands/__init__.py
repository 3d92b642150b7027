"""The commands of the command line, one file for each group; `cli` joins them.

May import everything else in the package; only `cli` may import it.
"""
