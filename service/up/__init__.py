"""`sluice up`: a model server and a gateway together, started, watched and stopped in order."""
