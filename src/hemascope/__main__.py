"""`python -m hemascope`, and what `torchrun -m hemascope train …` starts."""

from hemascope.cli import main

main()
