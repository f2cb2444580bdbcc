"""`lucid` as a person runs it, and hosts that speak to it. Read first: installation.py."""
