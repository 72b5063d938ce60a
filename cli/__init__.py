"""The command line: parse, one library call, render. Installed as ``promptopt_cli``."""
