"""Measurements: from a plan to a table in which every row has its provenance, and from the table to its findings.

The plan:
    dimensions, plan, link      what can vary; the cells; the network between the ends
    blocks                      which sample is next
The worker, on this machine or in a guest, without pandas:
    worker                      the process that measures
    arms, channels, steps       the client's end of a measured connection: what it opens, what it times
    peer, payloads              the other end; the bytes
    warmup, meters              when timing may begin; the counters
    statistics                  percentiles and histograms
The sweep, which starts workers through `ktlslab.runs`:
    sweeping, remainder, parts  a plan on machines; what is missing; one run of it
    estimate, progress          how long it takes; how far it is
    table                       the schema, reading and writing, merging
Whole fetches, for notebook 11:
    ways                        the first architecture and the present one
    fetcher, fetches            the process that measures them; their table
The findings:
    bootstrap, analysis         intervals; the effects of kTLS and of io_uring, over the noise floor
    comparison                  what changed from one table to another
"""

from ktlslab._lazy import modules

__getattr__, __dir__ = modules(__name__, __path__)
