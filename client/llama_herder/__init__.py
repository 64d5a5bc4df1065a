"""The client library of Llama-Herder: submit prompts to a herd and read the answers."""
