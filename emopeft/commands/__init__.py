"""The command line: one door (`emopeft.commands.door`), one file per group of subcommands.

Nothing here imports torch before the flags have been read, so that help is quick.
"""
