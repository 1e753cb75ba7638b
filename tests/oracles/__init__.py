"""Plain twins of the compiled core: clear before fast, in double precision. They never ship."""
