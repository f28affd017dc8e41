"""A server of one model for clients of OpenAI's interface, on Transformers' own `serve`; needs the extra `serve`."""
