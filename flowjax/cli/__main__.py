"""`python -m flowjax.cli`."""

from flowjax.cli import main

main()
