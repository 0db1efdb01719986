"""Runs: a worker process, here or in a guest, gets a job and records its results with their provenance.

Measuring and checking promises both use it.

    machines            this machine, or a guest of a kernel, under one of two clocks
    clocks              the units of time
    lock                one measurement at a time on a host
    job, launching      a worker's job; its process, here or in a guest
    provenance, unusual where figures come from, and what was odd
    counting            which CPU counted, and whether two did
    journal, storage    rows as they come; a table onto the disk, whole
"""
