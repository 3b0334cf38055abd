"""The resource `modeldeployments.evenkeel.dev`: what a user may write, what the operator answers, the CRD made from both."""
