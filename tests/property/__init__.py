"""Property tests: rules that hold for every world that hypothesis can build."""
