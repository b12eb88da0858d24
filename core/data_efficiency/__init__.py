r"""Data efficiency: what a token is worth.

Code -> paper: to be written.
Left out: to be written.
Source: to be written.
"""
