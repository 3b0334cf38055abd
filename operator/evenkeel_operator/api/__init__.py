"""The resource `modeldeployments.evenkeel.dev`: what may be written, what is answered, and the CRD."""
