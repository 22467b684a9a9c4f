"""`python -m bendscape.sweep`: the command line, where its script is not on the path."""

from bendscape.sweep.commands.cli import main

if __name__ == "__main__":
    main()
