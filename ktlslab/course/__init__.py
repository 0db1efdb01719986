"""Exercises of the notebooks: what is given, and checks that say what is wrong with an answer.

    verdicts     what a check says: right, wrong and why, or not answered yet
    puzzle       a made-up session: keys, write IVs, records
    machines     notebook 00
    handoff      notebook 01
    comparing    notebook 02
    after        notebook 03
    promised     notebook 04
    kernels      notebook 05
    rekey        notebook 06
    ring         notebook 07
    race         notebook 08
    inside       notebook 09
    trust        notebook 10
    ways         notebook 11

A check takes what was given and the answer, whatever that is: it never raises for a wrong one. An answer that is still
`...` is not answered yet, so a notebook runs to its end before anybody has solved anything. The solutions stand folded
at the end of each notebook.
"""

from ktlslab._lazy import modules

__getattr__, __dir__ = modules(__name__, __path__)
