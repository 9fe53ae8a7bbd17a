"""Trained folds for the hub: export, import, merge; and `load`, for those who fetch one."""

from emopeft.downstream.sharing.hub import load as load
