"""``python -m sr_deploy.cli``."""

from sr_deploy.cli import main

main()
