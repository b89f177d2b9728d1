"""`sluice replay`: what two versions of a model answer to the same captured requests."""
