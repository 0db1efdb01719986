"""Runs: a worker process, here or in a guest, gets a job, writes down what it finds, and says where that is from.

Measuring and checking promises both stand on it.

    machines            where: this machine, or a guest of a kernel, under one of two clocks
    clocks              what time is measured in
    lock                one measurement at a time on a host
    job, launching      what a worker is told; its process, here or in a guest
    provenance, unusual where figures come from, and what was odd
    journal, storage    rows as they come; a table onto the disk, whole
"""
