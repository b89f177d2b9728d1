"""`sluice package`: a version as an OCI image."""
