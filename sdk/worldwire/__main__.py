"""`python -m worldwire` is the command `worldwire`."""

from worldwire.cli import main

raise SystemExit(main())
