"""Pure logic: every decision about evidence, without clock, disk, environment, event loop or broker.

Imports schemas only. Bytes change in format/ and crypto/, the pipeline in stages/, a session's life in
lifecycle/, a seal in seal/, a verdict in verify/.
"""
