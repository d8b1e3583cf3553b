"""`aejax` as pip installs it: a script that lies elsewhere and calls main()."""

import sys

from aejax.cli import main

sys.exit(main())
