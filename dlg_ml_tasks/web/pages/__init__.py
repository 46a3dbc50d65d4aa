"""The pages: each is a model made from the read model, answered as HTML or JSON."""
