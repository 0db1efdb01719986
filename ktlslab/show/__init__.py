"""What a person looks at: pictures of the handoff, plots of a table, and the notebooks' own helpers.

    handoff      HTML pictures of one session, byte by byte; needs nothing but a browser
    machines     what this machine can do, and what a guest's kernel can
    race         which record a handoff begins with
    play         KeyUpdate in acts, the server's part by hand
    rings        io_uring, tried here and recorded
    way          one record's way through the kernel, from a profile's call tree
    server       a TLS server to hand off from, with a record of every byte that passed
    plots        from a table of samples: latency, CPU, throughput, the sign map of kernel over userspace, where the
                 CPU went, kernels side by side, distributions, the effect of depth
    reporting    all of them on one HTML page, with question, answer, method and provenance: `ktlslab report`
    ways         the first architecture and the present one, traced; `fetched` what they take, `fallbacks` each reason
                 made to happen, `libraries` what differs between the two, `recording` what other kernels showed
    tables       where a notebook's table comes from: swept now, or recorded
    forms        a form for a sweep, whose rows are plotted as they arrive
    paper        plots and tables for a paper: PDF, SVG, LaTeX
    notebooks    `python -m ktlslab.show.notebooks`: run the notebooks and keep what they show
    handouts     the same for a class: pages, PDFs, and copies for reading only

Each is imported by its own name, and only what shows a table imports pandas or matplotlib: `handoff` and
`server` also run in a guest, where those two would take half a minute.
"""

from ktlslab._lazy import modules

__getattr__, __dir__ = modules(__name__, __path__)
