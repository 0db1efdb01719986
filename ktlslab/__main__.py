"""`python -m ktlslab` is the `ktlslab` command."""

import sys

from ktlslab.cli import main

sys.exit(main())
