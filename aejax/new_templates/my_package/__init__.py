"""The parts of this project, named in its experiments as "my_package.module:name"."""
