"""`python -m hemascope`, and what `accelerate launch -m hemascope train …` starts."""

from hemascope.cli import main

main()
