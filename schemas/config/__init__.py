"""Every setting, once: its variable, kind, default and effect; pure, the environment is not read here.

May import schemas only. Begin with settings.py. values.py has the kinds of text, reference.py the pages.
"""
