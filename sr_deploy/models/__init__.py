"""The networks as trained, one file per architecture, branches and all."""
