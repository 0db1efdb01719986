"""Interoperation: ktlslab's client against real servers, its server against real clients, inside a guest.

A cell is a stack x a cipher suite x a feature x an arm (record layer and I/O engine), with every size of body. It is
right if all bytes came, the record layer was proved, and the connection ended at once by close_notify or by the error
that belongs to what happened. `python -m tests.interop` runs all cells; see __main__.

    stacks.py       what a stack is, and what it is asked for
    servers of      openssl.py, webservers.py, fronts.py, libraries.py, languages.py
    clients         clients.py
    talking.py      our end as a client; serving.py our end as a server
    running.py      runs cells; table.py prints them; recording.py writes them to data/
"""
