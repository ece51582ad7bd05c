"""Where the columns of a build come from."""
