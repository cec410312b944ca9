"""Ray Serve: the student as an endpoint, and what it costs beside its teacher."""
