"""Measuring: from a plan to a table whose every row says where it comes from, and from there to what it says.

What is to be done:
    dimensions, plan, link      what may be varied; the cells of it; what lies between the ends
    blocks                      which sample is next
Where it is done, here or in a guest, without pandas:
    worker                      the process that measures
    arms, channels, steps       one end of a measured connection: what is opened, what is timed
    peer, payloads              the other end; the bytes
    warmup, meters              when timing may begin; what is read
    statistics                  percentiles and histograms
Who has it done, by the runner that `ktlslab.runs` is:
    sweeping, remainder, parts  a plan on machines; what is missing; one run of it
    estimate, progress          how long; how far
    table                       the schema, reading and writing, merging
What it says:
    bootstrap, analysis         intervals; kTLS and io_uring apart, over the noise floor
    comparison                  what changed from one table to another
"""

from ktlslab._lazy import modules

__getattr__, __dir__ = modules(__name__, __path__)
