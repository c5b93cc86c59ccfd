"""The calls of `import flowjax as fj`: each a line in a notebook."""
