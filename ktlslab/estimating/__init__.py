"""Estimates: what an arm would cost on this CPU that this machine's kernel cannot run.

Instructions differ in what they take: one of the kernel's takes ten times as long as one of AES-GCM. How long each kind
takes on this CPU can be learnt from the arms that run here. Their instructions by class come from a profile in a guest,
their nanoseconds from a sweep on this machine; non-negative weights connect the two. With them the profile of the
kernel's arms becomes nanoseconds.

An estimate is no measurement: its unit is `estimated ns`, which no table of samples accepts; it has an interval, which
holds the doubt of its stand-ins; and how wrong it is where the truth is known is printed with it.

    estimation          the whole: sweep here, profile in a guest, fit, check, predict -> Estimate
    costs               which instructions cost alike; features of each cell and end
    observing           what the arms cost here, from a table of samples
    leastsquares, fitting  least squares with weights of 0 or more; the weights of cost classes
    checking            the error at each arm, suite and payload that is left out
    predicting          nanoseconds with intervals, or a reason why there are none
    frames              Estimate, writing and reading
"""

from ktlslab._lazy import modules

__getattr__, __dir__ = modules(__name__, __path__)
