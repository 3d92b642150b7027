"""The page: a client of served parties in a browser.

What its JavaScript needs to know of a model is made here (`model`); `static` is served as it is. It may import all
below the commands. No server that sees texts belongs here.
"""
