"""Measuring: from a plan to a table whose every row says how it was come by.

* `plan`: the dimensions, the cells that they span, and the order in which they run;
* `arms` and `peer`: the two ends of a measured connection;
* `clocks`, `statistics`, `provenance`: what is read, and what is said about it;
* `worker`: the process that measures, here or in a guest;
* `sweep` and `table`: the host's side, which may import pandas.
"""
