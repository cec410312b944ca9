"""KubeRay: the same recipe on Kubernetes."""
