"""`python -m medisyn` is `medisyn`."""

from medisyn.cli import main

if __name__ == "__main__":
    main()
