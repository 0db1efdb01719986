"""`ktlslab get`, with the names, messages and exit statuses that curl's users expect.

* `options`: the command line; `missing`: what curl has and this has not, and why;
* `asking`: from it to requests; `running`: each URL in turn, tried again where asked;
* `reporting`: what `-v`, `--json` and `-w` say; `progress`: the bar; `statuses`: the exit status of each error.
"""
