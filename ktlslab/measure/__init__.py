"""Measuring: from a plan to a table whose every row says how it was come by, and from there to what it says.

What is to be done:
    plan, link, blocks          dimensions and cells; what lies between the ends; which sample is next
Where it is done, here or in a guest, without pandas:
    worker                      the process that measures
    arms, channels, steps       one end of a measured connection: what is opened, what is timed
    peer, payload               the other end; the bytes
    warmup, meters, clocks      when timing may begin; what is read
    statistics                  percentiles and histograms
    provenance, unusual         where the figures come from, and what was odd
Who has it done:
    sweep, remaining, parts     a plan on machines; what is missing; one run of it
    machine, lock               where; one measurement at a time
    estimate, progress          how long; how far
    journal, storage, table     rows as they come; onto the disk, whole; the schema, merging
What it says:
    bootstrap, effects          intervals; kTLS and io_uring apart, over the noise floor
    difference                  what changed from one table to another
"""

from ktlslab._lazy import modules

__getattr__, __dir__ = modules(__name__, __path__)
