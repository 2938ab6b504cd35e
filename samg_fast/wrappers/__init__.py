"""Masked observations for environments: one line changes what an agent sees.

`samg_fast.wrappers.dm_env` wraps dm_control's environments, `samg_fast.wrappers.gymnasium` gymnasium's, and
`samg_fast.wrappers.vector` gymnasium's vector environments, whose frames are segmented all together. Each module is
imported by its name, as each needs packages of its own.
"""
